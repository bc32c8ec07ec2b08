//! What a model's architecture is, told by the modules that an adapter has of it, or by all of a base's.
//!
//! An adapter has only some of a model's modules, and architectures share names: a sign is a name that
//! no other has, a number of layers that another does not reach, or a width.

use super::pattern::{capture, capture_flat, strip_flat};
use super::{Rule, Side};
use crate::format::Checkpoint;

/// A module below its root or prefix.
#[derive(Debug, Clone, Copy)]
pub(in crate::adapter) struct ModuleShape<'a> {
    /// Its path; with underscores for dots where it is flat.
    pub(in crate::adapter) path: &'a str,
    /// Whether its dots became underscores.
    pub(in crate::adapter) flat: bool,
    /// Its outputs; 0 where they are not known.
    pub(in crate::adapter) outputs: usize,
    /// Its inputs; 0 where they are not known.
    pub(in crate::adapter) inputs: usize,
}

impl<'a> ModuleShape<'a> {
    /// A base's tensor, by what its name is below the root.
    pub(in crate::adapter) fn stored(base: &Checkpoint, name: &str, path: &'a str) -> Option<Self> {
        let shape = &base.tensor(name)?.spec.shape;
        let outputs = shape.first().copied().unwrap_or(0);
        let inputs = shape.iter().skip(1).product();
        Some(Self { path, flat: false, outputs, inputs })
    }

    /// What stands between the parts of its path.
    fn separator(&self) -> char {
        if self.flat { '_' } else { '.' }
    }

    /// Its path behind a literal start.
    fn below(&self, start: &str) -> Option<&str> {
        if self.flat { strip_flat(self.path, start) } else { self.path.strip_prefix(start) }
    }

    /// What stands in a pattern's gaps, if it fits.
    pub(in crate::adapter) fn capture(&self, pattern: &str) -> Option<Vec<String>> {
        if self.flat { capture_flat(pattern, self.path) } else { capture(pattern, self.path) }
    }
}

/// The modules of one part of a model.
#[derive(Debug, Clone, Copy)]
pub(in crate::adapter) struct Evidence<'a>(pub(in crate::adapter) &'a [ModuleShape<'a>]);

impl Evidence<'_> {
    /// Whether any module fits any of the patterns.
    pub(super) fn any(&self, patterns: &[&str]) -> bool {
        patterns.iter().any(|pattern| self.0.iter().any(|body| body.capture(pattern).is_some()))
    }

    /// Whether any module's path starts with one of these, up to a dot.
    pub(super) fn starts(&self, starts: &[&str]) -> bool {
        let own = |body: &ModuleShape<'_>, start: &str| {
            let rest = body.below(start);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(body.separator()))
        };
        self.0.iter().any(|body| starts.iter().any(|start| own(body, start)))
    }

    /// Whether a module of a fitting name has these outputs and inputs.
    pub(super) fn sized(&self, pattern: &str, (outputs, inputs): (usize, usize)) -> bool {
        let same = |body: &ModuleShape<'_>| body.outputs == outputs && body.inputs == inputs;
        self.0.iter().any(|body| same(body) && body.capture(pattern).is_some())
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
        let number = |body: &ModuleShape<'_>| {
            let separator = body.separator();
            let rest = body.below(start)?.strip_prefix(separator)?;
            rest.split(separator).next()?.parse().ok()
        };
        self.0.iter().filter_map(number).max()
    }
}

/// What an adapter's modules are called in the layouts of their architecture.
#[derive(Debug, Clone)]
pub(in crate::adapter) struct Detected {
    /// diffusers' name of the component.
    pub(in crate::adapter) component: &'static str,
    /// The rules; the first that fits a name holds.
    pub(in crate::adapter) rules: Vec<Rule>,
    /// Rules that come before the others where the names are for ComfyUI, whose own model has other
    /// modules than the published one.
    pub(in crate::adapter) comfyui: Vec<Rule>,
    /// Which layout's names kohya's scripts flatten.
    pub(in crate::adapter) kohya: Side,
    /// Which of diffusers' text encoders is a T5, where there is one.
    pub(in crate::adapter) t5: Option<u8>,
}

impl Detected {
    /// All rules, in no matter which order.
    pub(in crate::adapter) fn all(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().chain(&self.comfyui)
    }

    /// Puts the rules for ComfyUI's own names before the others, or after them: of several published
    /// names of a module the first is written, and all are understood.
    pub(in crate::adapter) fn arrange(&mut self, for_comfyui: bool) {
        let mut own = std::mem::take(&mut self.comfyui);
        if for_comfyui {
            std::mem::swap(&mut own, &mut self.rules);
        }
        self.rules.append(&mut own);
    }

    /// A transformer that kohya's scripts name as its authors did.
    pub(super) fn published(rules: Vec<Rule>) -> Self {
        let (component, kohya) = ("transformer", Side::Published);
        Self { component, rules, comfyui: Vec::new(), kohya, t5: None }
    }
}
