//! What is asked of a combination.

use std::path::PathBuf;

use regex::Regex;

use crate::adapter::OpenOptions;
use crate::format::Dtype;
use crate::math::RankPolicy;
use crate::method::params::Given;
use crate::method::{Compat, Space};
use crate::ops::shared::inputs::AdapterInput;
use crate::ops::shared::param_rules::ParamRule;
use crate::ops::shared::selection::Selection;

/// What to do where adapters replace one tensor with different values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnConflict {
    /// The first adapter's.
    First,
    /// The mean of all.
    Average,
    /// None: the tensor is left out.
    Drop,
}

/// Which modules a rank for convolutions is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConvScope {
    /// Kernels larger than one element, as kohya's `svd_merge_lora.py` has it.
    #[default]
    Spatial,
    /// All convolutions, 1 × 1 too, as kohya's `resize_lora.py` has it.
    All,
}

/// What to combine, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The adapters, in order.
    pub adapters: Vec<AdapterInput>,
    /// Where the result goes.
    pub output: PathBuf,
    /// How adapters are opened.
    pub open: OpenOptions,
    /// The method's name; `linear` if `None`.
    pub method: Option<String>,
    /// The method's parameters, as text.
    pub params: Given,
    /// Those that are not the same for all modules.
    pub param_rules: Vec<ParamRule>,
    /// Where an elementwise method looks; at the deltas, or where the peer does, if `None`.
    pub space: Option<Space>,
    /// A peer whose arithmetic is to be reproduced.
    pub compat: Option<Compat>,
    /// Rank policy; `lossless`, or the method's own factors, if `None`.
    pub rank: Option<RankPolicy>,
    /// Rank policy of convolutions; as `rank` if `None`.
    pub conv_rank: Option<RankPolicy>,
    /// Which modules `conv_rank` is for.
    pub conv_scope: ConvScope,
    /// The highest rank of any module.
    pub max_rank: Option<usize>,
    /// The highest rank of the modules that `conv_scope` names; as `max_rank` if `None`.
    pub conv_max_rank: Option<usize>,
    /// Fill all modules up to one rank with zeros.
    pub uniform: bool,
    /// Write the scale of the first input's module; else 1 (alpha = rank).
    pub keep_scale: bool,
    /// Only modules that match.
    pub include: Option<Regex>,
    /// No modules that match.
    pub exclude: Option<Regex>,
    /// Factors for the weight of modules that match; the last match wins.
    pub module_weights: Vec<(Regex, f64)>,
    /// kohya's block weights, one list an adapter, in order.
    pub block_weights: Vec<Vec<f64>>,
    /// Dtype of the factors; the widest among the inputs if `None`.
    pub dtype: Option<Dtype>,
    /// The convention to write; the first input's if `None`.
    pub to: Option<String>,
    /// A base to take names from, and what llama.cpp has to know, where `to` needs it.
    pub reference: Option<PathBuf>,
    /// What the result is called in its header; by its file's name if `None`, where inputs have titles.
    pub title: Option<String>,
    /// The words that call up what was trained; those of all inputs if `None`.
    pub trigger: Option<String>,
    /// Write a model card with the result.
    pub card: bool,
    /// Combine adapters too that nothing shows to be of one model.
    pub allow_disjoint: bool,
    /// What to do with replaced tensors that differ; an error if `None`.
    pub on_conflict: Option<OnConflict>,
    /// The text of the recipe that asks for this, for the output's metadata.
    pub recipe: Option<String>,
    /// Replace an existing output.
    pub force: bool,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
    /// Rows of deltas that are computed together, by their size if `None`: no bit of the output depends
    /// on it.
    pub block_rows: Option<usize>,
}

impl Options {
    /// Which modules the options are for, by their names.
    pub(super) fn selection(&self) -> Selection<'_> {
        Selection {
            include: self.include.as_ref(),
            exclude: self.exclude.as_ref(),
            module_weights: &self.module_weights,
        }
    }
}
