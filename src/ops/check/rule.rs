//! A rule: what a program does with something in an adapter, in which versions, how it is seen, and
//! what puts it right. Rules are data; what looks for it is a function of the [`Subject`].

use serde::Serialize;

use super::place::Found;
use super::subject::Subject;
use super::version::Version;

/// What a program does with what a rule finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Nothing wrong, but the server needs a flag, or the user should know.
    Note,
    /// It is not known what the program does.
    Unknown,
    /// The program loads the rest, and computes with something else.
    Changed,
    /// It is multiplied by another number than it was trained with.
    ScaledWrongly,
    /// It is passed over without an error.
    Ignored,
    /// It is added to other weights than it was trained for.
    LandsElsewhere,
    /// The program refuses the adapter.
    Refused,
}

impl Effect {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Changed => "computed otherwise",
            Self::ScaledWrongly => "scaled wrongly",
            Self::Ignored => "ignored",
            Self::LandsElsewhere => "lands elsewhere",
            Self::Refused => "refused",
        }
    }
}

/// What puts a finding right.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cure {
    /// Nothing that this program does, or no harm done.
    None,
    /// `convert --for` the program.
    Convert,
    /// The adapter merged into the base, and a LoRA made of the difference.
    Extract,
    /// `resize` to this rank at most.
    Resize(fn(&Subject<'_>) -> usize),
}

/// See the module's documentation.
pub(super) struct Rule {
    /// What the rule is called in reports.
    pub(super) name: &'static str,
    pub(super) effect: Effect,
    /// The first version that does it; empty for all that were read.
    since: &'static str,
    /// The first version that does not any more; empty for none.
    until: &'static str,
    /// What the program does, in a sentence that begins with it.
    pub(super) says: &'static str,
    /// The file and function of the program's source.
    pub(super) source: &'static str,
    pub(super) cure: Cure,
    pub(super) finds: fn(&Subject<'_>) -> Found,
}

impl Rule {
    pub(super) const fn new(
        name: &'static str,
        effect: Effect,
        says: &'static str,
        source: &'static str,
        finds: fn(&Subject<'_>) -> Found,
    ) -> Self {
        let (since, until, cure) = ("", "", Cure::None);
        Self { name, effect, since, until, says, source, cure, finds }
    }

    /// The same, mended by converting for the program.
    pub(super) const fn converts(self) -> Self {
        Self { cure: Cure::Convert, ..self }
    }

    /// The same, mended by merging and extracting.
    pub(super) const fn extracts(self) -> Self {
        Self { cure: Cure::Extract, ..self }
    }

    /// The same, mended by a lower rank.
    pub(super) const fn resizes(self, rank: fn(&Subject<'_>) -> usize) -> Self {
        Self { cure: Cure::Resize(rank), ..self }
    }

    /// The same, from this version on.
    pub(super) const fn since(self, since: &'static str) -> Self {
        Self { since, ..self }
    }

    /// The same, in versions before this one.
    pub(super) const fn until(self, until: &'static str) -> Self {
        Self { until, ..self }
    }

    /// Whether it holds for a version; a program without versions has one.
    pub(super) fn holds(&self, version: &Version) -> bool {
        let bound = |text: &str| Version::parse(text);
        bound(self.since).is_none_or(|since| *version >= since)
            && bound(self.until).is_none_or(|until| *version < until)
    }
}
