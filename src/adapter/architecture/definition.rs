//! What an architecture is: its rules, and how adapters and bases tell that they are of it.

use std::collections::BTreeSet;

use super::cut::Cut;
use super::evidence::{Detected, Evidence};
use super::pattern::capture;

/// A module in both layouts: paths of parts, of which `{i}` stands for a number, `{*}` for any parts,
/// and `{e}` for each matrix of a stack.
#[derive(Debug, Clone)]
pub(in crate::adapter) struct Rule {
    /// Its path in diffusers or transformers.
    pub(in crate::adapter) split: String,
    /// The tensor that it is in, or part of.
    pub(in crate::adapter) published: String,
    /// Which part.
    pub(in crate::adapter) cut: Cut,
}

/// The two layouts of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapter) enum Side {
    /// diffusers' or transformers'.
    Split,
    /// Its authors'.
    Published,
}

impl Rule {
    /// What a module is called on one side.
    pub(in crate::adapter) fn side(&self, side: Side) -> &str {
        match side {
            Side::Split => &self.split,
            Side::Published => &self.published,
        }
    }
}

/// The names of a base's tensors below one root, without `.weight`.
pub(in crate::adapter) type Names<'a> = BTreeSet<&'a str>;

/// One architecture.
pub(in crate::adapter) struct Architecture {
    /// What it is called, its file's name.
    pub(in crate::adapter) name: &'static str,
    /// Its rules as text (see `table.rs`), which a test reads line by line.
    #[cfg_attr(not(test), expect(dead_code, reason = "a static's own functions name its tables"))]
    pub(super) tables: &'static [&'static str],
    /// The rules that hold for a base.
    pub(super) rules: OfBase,
    /// What an adapter's modules are called in either layout, if they tell that they are of it.
    pub(in crate::adapter) detect: fn(&Evidence<'_>) -> Option<Detected>,
}

/// How a base's tensors tell which rules hold for it.
pub(super) enum OfBase {
    /// As an adapter of all of them would. No other denoiser's rules hold then.
    Detected,
    /// By their names; no rules if it is of another architecture.
    Names(fn(&Names<'_>) -> Vec<Rule>),
    /// The same, of what may stand beside any other architecture.
    Beside(fn(&Names<'_>) -> Vec<Rule>),
}

/// An architecture whose adapters' names do not depend on the layout of a base.
pub(super) fn undetected(_: &Evidence<'_>) -> Option<Detected> {
    None
}

/// Whether a name starts so.
pub(super) fn has(names: &Names<'_>, start: &str) -> bool {
    names.range(start..).next().is_some_and(|name| name.starts_with(start))
}

/// Whether any name fits the pattern.
pub(super) fn fits(names: &Names<'_>, pattern: &str) -> bool {
    names.iter().any(|name| capture(pattern, name).is_some())
}
