//! What a merge is asked to do, and what that means for one module.

use std::path::PathBuf;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::gguf_types::Types;
use crate::adapter::OpenOptions;
use crate::error::{ErrorKind, Result};
use crate::format::{Checkpoint, Dtype, pattern};
use crate::method::params::Given;
use crate::ops::merge::{Compat, PlannedAdapter};
use crate::ops::shared::inputs::AdapterInput;
use crate::ops::shared::param_rules::ParamRule;
use crate::ops::shared::rules::Layers;
use crate::ops::shared::selection::{Selection, Usage};
use crate::weight::{EightBit, Scales, Writing};

/// What to do where a quantised weight changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quantized {
    /// All quantised weights are written as plain numbers, in 16 bit unless a dtype is asked for.
    #[default]
    #[serde(rename = "16bit")]
    SixteenBit,
    /// Those that change are quantised again, as they were; all others keep their bytes.
    #[serde(rename = "requantize")]
    Requantize,
    /// Those that change are written as plain numbers, with those that programs load as one with them; all others keep
    /// their bytes.
    #[serde(rename = "hybrid")]
    Hybrid,
    /// The merge is refused.
    #[serde(rename = "refuse")]
    Refuse,
}

/// What weights that change become in a hybrid, with those that programs load as one with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Touched {
    /// Plain numbers.
    #[default]
    #[serde(rename = "16bit")]
    SixteenBit,
    /// Whole numbers of 8 bits with a scale a row.
    Int8,
    /// 8-bit floats with a scale a row.
    Fp8,
    /// ggml's blocks of 8 bits.
    #[serde(rename = "q8_0")]
    Q8,
}

/// Their names.
pub const TOUCHED: [(&str, Touched); 4] = [
    ("16bit", Touched::SixteenBit),
    ("int8", Touched::Int8),
    ("fp8", Touched::Fp8),
    ("q8_0", Touched::Q8),
];

/// The least share of an update that must survive in every weight that is quantised again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LeastSurvival(pub f64);

impl Default for LeastSurvival {
    fn default() -> Self {
        Self(0.9)
    }
}

/// What to merge, and how.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The base checkpoint.
    pub base: PathBuf,
    /// The adapters, in order.
    pub adapters: Vec<AdapterInput>,
    /// Where the result goes: one file if it ends in `.safetensors`, else a directory.
    pub output: PathBuf,
    /// How adapters are opened, and how all inputs are read.
    pub open: OpenOptions,
    /// The method's name; the weighted sum if `None`.
    pub method: Option<String>,
    /// The method's parameters, as text.
    pub params: Given,
    /// Those that are not the same for all modules.
    pub param_rules: Vec<ParamRule>,
    /// A peer whose arithmetic is to be reproduced.
    pub compat: Option<Compat>,
    /// Dtype of all floating-point tensors of the result; the base's own if `None`.
    pub dtype: Option<Dtype>,
    /// What to do where a quantised weight of the base changes.
    pub quantized: Quantized,
    /// What those that change become in a hybrid.
    pub touched: Touched,
    /// A quantised checkpoint of the base's model, which the result is quantised like.
    pub quantize_like: Option<PathBuf>,
    /// What the base was kept in while the adapter was trained: it is read as that.
    pub as_trained: Option<String>,
    /// How weights are quantised again.
    pub writing: Writing,
    /// What of every update must survive that.
    pub min_survival: LeastSurvival,
    /// Write a model card with the result.
    pub card: bool,
    /// Where to write the adapter that gives back what quantising takes.
    pub residual: Option<PathBuf>,
    /// Its rank; the largest of the adapters' if `None`.
    pub residual_rank: Option<usize>,
    /// The types of weights that change, in a GGUF result; [`Types::Auto`] if `None`.
    pub types: Option<Types>,
    /// The same base in the other container: a checkpoint of transformers' whose names and files a GGUF base's result
    /// has, or a GGUF model whose names, metadata and types a result in GGUF has.
    pub reference: Option<PathBuf>,
    /// Bytes a shard may have; the base's own shards if `None`.
    pub max_shard_size: Option<u64>,
    /// Only modules that match.
    #[serde(with = "pattern::optional")]
    pub include: Option<Regex>,
    /// No modules that match.
    #[serde(with = "pattern::optional")]
    pub exclude: Option<Regex>,
    /// Factors for the weight of modules that match; the last match wins.
    #[serde(with = "pattern::numbered")]
    pub module_weights: Vec<(Regex, f64)>,
    /// Merge the rest if some adapter tensors fit nothing.
    pub allow_unmatched: bool,
    /// Add whole tensors that the base has not, also those that no config declares.
    pub add_new: bool,
    /// Leave tied embeddings tied, though the adapter changes only one side.
    pub keep_tied: bool,
    /// Say in every header what the result was made of, and how.
    pub provenance: bool,
    /// The text of the recipe that asks for this, for the output's metadata.
    pub recipe: Option<String>,
    /// Replace an existing output.
    pub force: bool,
    /// Keep finished shards of an interrupted run, and use those that such a run has kept.
    pub resume: bool,
    /// Check the written result against an f64 recomputation.
    pub verify: bool,
    /// Where to keep what [`undo`](crate::ops::undo) needs.
    pub receipt: Option<PathBuf>,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
    /// Rows that are computed together, by their size if `None`: no bit of the output depends on it.
    pub block_rows: Option<usize>,
}

impl Options {
    /// Fails if it is said how weights are quantised again, and none is to be.
    pub(in crate::ops::merge) fn check_writing(&self) -> Result<()> {
        let least = self.min_survival.0;
        if !(0.0..=1.0).contains(&least) {
            let reason = format!("--min-survival is a share from 0 to 1, not {least}");
            return Err(ErrorKind::BadOption(reason).into());
        }
        let said = self.writing != Writing::default();
        if said && !self.requantises() && !self.is_gguf() {
            let reason = "--scales and --rounding say how weights are quantised again, which \
                          --quantized requantize and --quantize-like ask for";
            return Err(ErrorKind::BadOption(reason.to_owned()).into());
        }
        Ok(())
    }

    /// Fails if options are asked for that each say what becomes of quantised weights.
    pub(in crate::ops::merge) fn check_together(&self) -> Result<()> {
        let together = |reason: &str| Err(ErrorKind::BadOption(reason.to_owned()).into());
        if self.as_trained.is_some()
            && (self.quantize_like.is_some() || self.quantized != Quantized::default())
        {
            return together(
                "--as-trained is for a 16-bit base that stays one; leave out --quantized and --quantize-like",
            );
        }
        if self.reference.is_some() && (self.as_trained.is_some() || self.quantize_like.is_some()) {
            return together("--reference goes without --as-trained and --quantize-like");
        }
        if self.touched != Touched::SixteenBit && self.quantized != Quantized::Hybrid {
            return together(
                "--touched says what a weight becomes that changes in --quantized hybrid",
            );
        }
        if self.touched != Touched::SixteenBit && self.writing.scales == Scales::Reuse {
            return together(
                "--touched makes codes of another kind, whose scales are new: leave out --scales reuse",
            );
        }
        if self.touched == Touched::Q8 {
            return together("q8_0 is a type of GGUF files: use -o OUT.gguf --types q8_0");
        }
        if self.residual.is_some() && (!self.requantises() || self.is_gguf()) {
            return together(
                "--residual gives back what --quantized requantize, --quantize-like or --touched take, in a \
                 result in safetensors",
            );
        }
        if self.residual_rank.is_some_and(|rank| rank == 0 || self.residual.is_none()) {
            return together("--residual-rank is the rank of --residual DIR, 1 at least");
        }
        if self.quantize_like.is_none() {
            return Ok(());
        }
        if self.quantized != Quantized::default() || self.dtype.is_some() {
            return together(
                "--quantize-like takes every tensor's dtype from the quantised checkpoint; leave out \
                 --quantized and --dtype",
            );
        }
        if self.receipt.is_some() {
            return together(
                "--receipt is for a result whose numbers are near the base's own; beside one that \
                 --quantize-like asks for, keep the base",
            );
        }
        Ok(())
    }

    /// The codes of 8 bits that weights of a hybrid have which change, if they become no plain numbers.
    pub(in crate::ops::merge) fn eight_bit(&self) -> Option<EightBit> {
        match self.touched {
            Touched::SixteenBit | Touched::Q8 => None,
            Touched::Int8 => Some(EightBit::Integers),
            Touched::Fp8 => Some(EightBit::Floats),
        }
    }

    /// Whether weights are quantised again.
    pub(in crate::ops::merge) fn requantises(&self) -> bool {
        self.quantized == Quantized::Requantize
            || self.quantize_like.is_some()
            || self.touched != Touched::SixteenBit
    }

    /// Whether the result is a GGUF file, or a directory of some: types are asked for there.
    pub(in crate::ops::merge) fn is_gguf(&self) -> bool {
        let ending = self.output.extension().unwrap_or_default();
        ending == "gguf" || (self.types.is_some() && ending != "safetensors")
    }

    /// Which modules the options are for, by their names and those of the tensors they land on.
    pub(in crate::ops::merge) fn selection(&self) -> Selection<'_> {
        Selection {
            include: self.include.as_ref(),
            exclude: self.exclude.as_ref(),
            module_weights: &self.module_weights,
        }
    }

    /// Whether a module (or the tensor it lands on) takes part.
    pub(in crate::ops::merge) fn selects(&self, module: &str, tensor: &str) -> bool {
        self.selection().selects([module, tensor])
    }

    /// The weight of an input's module on a tensor, 0 if its rules leave it out.
    pub(in crate::ops::merge) fn weight(
        &self,
        input: &AdapterInput,
        module: &str,
        tensor: &str,
    ) -> f64 {
        let names = [module, tensor];
        input.weight * input.rules.weight(names) * self.selection().weight(names)
    }

    /// The same options, the inputs' gradients spread over the base's layers.
    pub(in crate::ops::merge) fn over_layers(&self, base: &Checkpoint) -> Self {
        let layers = Layers::of(base.names());
        let over = |input: &AdapterInput| AdapterInput {
            rules: input.rules.over(&layers),
            ..input.clone()
        };
        Self { adapters: self.adapters.iter().map(over).collect(), ..self.clone() }
    }

    /// Fails if an option about modules decides nothing, or if nothing is left to merge.
    pub(in crate::ops::merge) fn check_selection(
        &self,
        usage: &Usage,
        adapters: &[PlannedAdapter],
    ) -> Result<()> {
        self.selection().check(usage)?;
        if !adapters.is_empty() && adapters.iter().all(|adapter| adapter.applied == 0) {
            return Err(ErrorKind::NothingSelected.into());
        }
        Ok(())
    }
}
