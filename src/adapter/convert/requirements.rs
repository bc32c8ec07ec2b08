//! What a program that loads adapters needs written, beyond what its convention says.

use crate::weight::root::Root;

/// How a program's adapters have a layer's experts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Experts {
    /// As the adapter has them.
    AsTheyAre,
    /// One by one.
    Single,
    /// In stacks or one by one: whether in stacks, by the class of the base's model.
    ByClass(fn(&str) -> bool),
}

/// What has to be written for a program, beyond what its convention says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Takes {
    /// The convention; of several, that of the adapter if it is among them, else the first.
    pub(crate) conventions: &'static [&'static str],
    /// One rank and one scale for all modules.
    pub(crate) uniform: bool,
    /// The scale is 1, whatever the file says.
    pub(crate) scale_one: bool,
    /// A and B, and nothing beside them.
    pub(crate) factors_only: bool,
    /// LoRA and DoRA, and none of PEFT's other types.
    pub(crate) lora_only: bool,
    /// Modules are called as the base's tensors are.
    pub(crate) base_names: bool,
    /// Where it has the language model of a base that wraps one; with `base_names` only what the base itself has
    /// outside of any wrapper.
    pub(crate) wrapped: Option<Root>,
    /// `target_modules` is a list of last parts of names.
    pub(crate) leaf_targets: bool,
    /// Projections that are joined at load: where one of a layer is there, all are.
    pub(crate) complete: &'static [&'static [&'static str]],
    /// How it has experts.
    pub(crate) experts: Experts,
    /// What it calls an expert's gate, up and down; as the base does, without.
    pub(crate) matrices: Option<[&'static str; 3]>,
    /// A kind of module that is in one layer is in all.
    pub(crate) every_layer: bool,
    /// A GGUF file goes into a directory, with a Modelfile beside it.
    pub(crate) modelfile: bool,
    /// Ranks and alphas of single modules are read, as `extract` and `resize` write them.
    pub(crate) reads_patterns: bool,
}

impl Takes {
    /// Whatever the convention can say.
    pub(crate) const fn convention(conventions: &'static [&'static str]) -> Self {
        Self {
            conventions,
            uniform: false,
            scale_one: false,
            factors_only: false,
            lora_only: false,
            base_names: false,
            wrapped: None,
            leaf_targets: false,
            complete: &[],
            experts: Experts::AsTheyAre,
            matrices: None,
            every_layer: false,
            modelfile: false,
            reads_patterns: false,
        }
    }

    /// PEFT's directory as servers read it: one rank, one scale, factors under the base's own names.
    pub(crate) const SERVER: Self = Self {
        uniform: true,
        factors_only: true,
        base_names: true,
        experts: Experts::Single,
        ..Self::convention(&["peft"])
    };
}
