//! Layouts of known architectures, as data: what each module of one layout is called, and which rows
//! it has, in the other.
//!
//! One file an architecture, listed once in [`ARCHITECTURES`]. A rule names a module in diffusers' (or
//! transformers') layout and in the checkpoint its authors published, and holds in both directions:
//! [`Catalogue`](super::catalogue::Catalogue) turns it into names that a base's tensors also answer to.

mod clip;
mod experts;
mod flux;
mod hunyuan_video;
mod language;
mod lumina;
mod pattern;
mod pixart;
mod qwen_image;
mod releases;
mod sd3;
mod seen;
mod t5;
mod unet;
mod wan;

use std::collections::BTreeSet;

pub(super) use clip::is_turned;
pub(super) use pattern::{capture, fill};
pub(super) use seen::{Body, Seen, Told};

/// What of a published tensor a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// All of it.
    Whole,
    /// `count` of `of` equal parts of its rows, from part `start` on.
    Share {
        /// The first part.
        start: usize,
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
    },
    /// As many of its first rows as the module has outputs; two others of equal size follow.
    First,
    /// As many of its rows, as many again before them and others behind.
    Second,
    /// As many of its rows, as many again behind them.
    Middle,
    /// As many of its last rows.
    Last,
    /// All of it, the second half of its rows first.
    Swapped,
    /// One matrix of a stack, whose number the rule's `{e}` stands for.
    Stack,
    /// One half of it, the gate's or the projection's up.
    StackHalf(usize),
}

impl Cut {
    /// One of `of` equal parts.
    pub(super) const fn nth(start: usize, of: usize) -> Self {
        Self::Share { start, count: 1, of }
    }

    /// Where among its tensor's modules it stands, and whether it is the last.
    pub(super) fn order(self) -> Option<(usize, usize)> {
        match self {
            Self::Share { start, count, of } => {
                Some((start, if start + count == of { of } else { 0 }))
            }
            Self::First => Some((0, 0)),
            Self::Middle | Self::Second => Some((1, 0)),
            Self::Last => Some((2, 3)),
            _ => None,
        }
    }
}

/// A module in both layouts: paths of parts, of which `{i}` stands for a number, `{*}` for any parts,
/// and `{e}` for each matrix of a stack.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// Its path in diffusers or transformers.
    pub(super) split: String,
    /// The tensor that it is in, or part of.
    pub(super) published: String,
    /// Which part.
    pub(super) cut: Cut,
}

/// The two layouts of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// diffusers' or transformers'.
    Split,
    /// Its authors'.
    Published,
}

impl Rule {
    /// What a module is called on one side.
    pub(super) fn side(&self, side: Side) -> &str {
        match side {
            Side::Split => &self.split,
            Side::Published => &self.published,
        }
    }
}

/// The names of a base's tensors below one root, without `.weight`.
pub(super) type Names<'a> = BTreeSet<&'a str>;

/// One architecture.
pub(super) struct Architecture {
    /// What it is called, its file's name.
    pub(super) name: &'static str,
    /// The rules that hold for a base of these names; none if it is of another architecture.
    pub(super) rules: fn(&Names<'_>) -> Vec<Rule>,
    /// What an adapter's modules are called in either layout, if they tell that they are of it.
    pub(super) told: fn(&Seen<'_>) -> Option<Told>,
}

/// An architecture whose adapters' names do not depend on the layout of a base.
fn untold(_: &Seen<'_>) -> Option<Told> {
    None
}

/// All architectures; of those that an adapter could be of, the first is taken.
pub(super) static ARCHITECTURES: [&Architecture; 13] = [
    &unet::ARCHITECTURE,
    &clip::ARCHITECTURE,
    &hunyuan_video::ARCHITECTURE,
    &qwen_image::ARCHITECTURE,
    &flux::ARCHITECTURE,
    &sd3::ARCHITECTURE,
    &pixart::ARCHITECTURE,
    &wan::ARCHITECTURE,
    &lumina::ARCHITECTURE,
    &t5::ARCHITECTURE,
    &language::ARCHITECTURE,
    &experts::ARCHITECTURE,
    &releases::ARCHITECTURE,
];

/// A table as it is written down.
type Table = [(&'static str, &'static str, Cut)];

fn rules_of(table: &Table) -> Vec<Rule> {
    let rule = |(split, published, cut): &(&str, &str, Cut)| Rule {
        split: (*split).to_owned(),
        published: (*published).to_owned(),
        cut: *cut,
    };
    table.iter().map(rule).collect()
}

/// Whether a name starts so.
fn has(names: &Names<'_>, start: &str) -> bool {
    names.range(start..).next().is_some_and(|name| name.starts_with(start))
}

/// Whether any name fits the pattern.
fn fits(names: &Names<'_>, pattern: &str) -> bool {
    names.iter().any(|name| capture(pattern, name).is_some())
}
