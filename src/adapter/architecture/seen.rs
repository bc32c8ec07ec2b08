//! What a model's architecture is, told by the modules that an adapter has of it, or by all of a base's.
//!
//! An adapter has only some of a model's modules, and architectures share names: a sign is a name that
//! no other has, a number of layers that another does not reach, or a width.

use super::pattern::{capture, capture_flat};
use super::{Rule, Side};

/// A module below its root or prefix.
#[derive(Debug, Clone, Copy)]
pub(in crate::adapter) struct Body<'a> {
    /// Its path; with underscores for dots where it is flat.
    pub(in crate::adapter) path: &'a str,
    /// Whether its dots became underscores.
    pub(in crate::adapter) flat: bool,
    /// Its outputs; 0 where they are not known.
    pub(in crate::adapter) outputs: usize,
    /// Its inputs; 0 where they are not known.
    pub(in crate::adapter) inputs: usize,
}

impl Body<'_> {
    /// What stands in a pattern's gaps, if it fits.
    pub(in crate::adapter) fn capture(&self, pattern: &str) -> Option<Vec<String>> {
        if self.flat { capture_flat(pattern, self.path) } else { capture(pattern, self.path) }
    }
}

/// The modules of one part of a model.
#[derive(Debug, Clone, Copy)]
pub(in crate::adapter) struct Seen<'a>(pub(in crate::adapter) &'a [Body<'a>]);

impl Seen<'_> {
    /// Whether any module fits any of the patterns.
    pub(super) fn any(&self, patterns: &[&str]) -> bool {
        patterns.iter().any(|pattern| self.0.iter().any(|body| body.capture(pattern).is_some()))
    }

    /// Whether a module of a fitting name has this many inputs.
    pub(super) fn width(&self, pattern: &str, widths: &[usize]) -> bool {
        self.0.iter().any(|body| widths.contains(&body.inputs) && body.capture(pattern).is_some())
    }

    /// Whether a module of a fitting name has this many times as many outputs as inputs.
    pub(super) fn ratio(&self, pattern: &str, ratio: usize) -> Option<bool> {
        let mut found = self.0.iter().filter(|body| body.capture(pattern).is_some());
        found.next().map(|body| body.outputs == ratio * body.inputs)
    }

    /// The highest number behind a path, of all names that go on after it.
    pub(super) fn highest(&self, start: &str) -> Option<usize> {
        let number = |body: &Body<'_>| {
            let separator = if body.flat { '_' } else { '.' };
            let rest = body.path.strip_prefix(start)?.strip_prefix(separator)?;
            rest.split(separator).next()?.parse().ok()
        };
        self.0.iter().filter_map(number).max()
    }
}

/// What an adapter's modules are called in the layouts of their architecture.
#[derive(Debug, Clone)]
pub(in crate::adapter) struct Told {
    /// diffusers' name of the component.
    pub(in crate::adapter) component: &'static str,
    /// The rules; the first that fits a name holds.
    pub(in crate::adapter) rules: Vec<Rule>,
    /// Which layout's names kohya's scripts flatten.
    pub(in crate::adapter) kohya: Side,
    /// Which of diffusers' text encoders is a T5, where there is one.
    pub(in crate::adapter) t5: Option<u8>,
}

impl Told {
    /// A transformer that kohya's scripts name as its authors did.
    pub(super) fn published(rules: Vec<Rule>) -> Self {
        Self { component: "transformer", rules, kohya: Side::Published, t5: None }
    }
}
