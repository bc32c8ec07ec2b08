//! Everything that a merge will write, as plain data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::layout::{OutputShard, OutputTensor};
use super::method_choice::MethodChoice;
use super::quantised::Dequantised;
use super::side::{NotCarried, SideFile};
use super::tensor_plan::TensorPlan;
use crate::error::UnmatchedName;
use crate::format::Metadata;

/// An adapter's part in a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedAdapter {
    /// Its path.
    pub path: PathBuf,
    /// Its weight.
    pub weight: f64,
    /// Whether rules multiply it, module by module.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_module: bool,
    /// Its convention.
    pub convention: String,
    /// Modules and replacements in it.
    pub total: usize,
    /// Of those, what is applied.
    pub applied: usize,
    /// Of those, what `--include`, `--exclude` or a weight of 0 leave out.
    pub left_out: usize,
}

/// Everything that will be written, decided before a byte is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// The base.
    pub base: PathBuf,
    /// The adapters.
    pub adapters: Vec<PlannedAdapter>,
    /// The output.
    pub output: PathBuf,
    /// The method that combines the deltas; their weighted sum if none.
    pub method: Option<MethodChoice>,
    /// The text of the recipe that asked for it, for the headers of its files.
    pub recipe: Option<String>,
    /// What every header says of where the result comes from, once the inputs were hashed for it.
    pub origin: Option<Metadata>,
    /// Whether the output is one file.
    pub one_file: bool,
    /// Weight files to write.
    pub shards: Vec<OutputShard>,
    /// Other files to write.
    pub side_files: Vec<SideFile>,
    /// Files beside the base's weights that the output will not have, and why.
    pub not_carried: Vec<NotCarried>,
    /// Adapter tensors that fit nothing, if that was allowed.
    pub unmatched: Vec<UnmatchedName>,
    /// Bytes of the weight files.
    pub bytes: u64,
    /// Quantised weights of the base that are written as plain numbers, if they are.
    pub dequantised: Option<Dequantised>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Tensors of all shards.
    pub fn tensors(&self) -> impl Iterator<Item = &OutputTensor> {
        self.shards.iter().flat_map(|shard| &shard.tensors)
    }

    pub(in crate::ops::merge) fn count(&self, wanted: fn(&TensorPlan) -> bool) -> usize {
        self.tensors().filter(|tensor| wanted(&tensor.plan)).count()
    }
}
