//! What `inspect` reports.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use super::encodings::EncodingItem;
use crate::adapter::place::Placement;

/// All items, in the order they were asked for.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// One a path.
    pub items: Vec<Item>,
}

/// One adapter or checkpoint.
#[derive(Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Item {
    /// Its path.
    pub path: PathBuf,
    /// `adapter` or `checkpoint`.
    pub kind: &'static str,
    /// An adapter's key grammar; null for a checkpoint, as all that only adapters have.
    pub convention: Option<&'static str>,
    /// The model that an adapter is for, as far as its names, widths and header tell; of a checkpoint the class that
    /// its config names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Layers that a checkpoint's config names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<u64>,
    /// An adapter's modules by the part of the model that they are of.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<&'static str, usize>,
    /// The base an adapter says it was trained on.
    pub base_model: Option<String>,
    /// Whether the adapter's scales are alpha/√rank.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rslora: bool,
    /// Tensors.
    pub tensors: usize,
    /// Values in all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Tensors by dtype.
    pub dtypes: BTreeMap<String, usize>,
    /// Weight files of a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<Vec<ShardItem>>,
    /// A checkpoint's tensors, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor_list: Option<Vec<TensorItem>>,
    /// What the weights of a quantised checkpoint are stored as, the unquantised ones too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encodings: Option<Vec<EncodingItem>>,
    /// Modules by rank; those of families without one are not counted.
    pub ranks: Option<BTreeMap<usize, usize>>,
    /// An adapter's modules.
    pub modules: Option<Vec<ModuleItem>>,
    /// Tensors that replace the base's, by label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacements: Option<Vec<ReplacementItem>>,
    /// An adapter's share of the base's parameters, with `against`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_of_base: Option<f64>,
    /// The header's metadata, long values shortened.
    pub metadata: Map<String, Value>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// One weight file.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ShardItem {
    /// Its path below the checkpoint.
    pub file: String,
    /// Tensors in it.
    pub tensors: usize,
    /// Bytes of its tensors.
    pub bytes: u64,
}

/// One tensor of a checkpoint.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct TensorItem {
    /// Its name.
    pub name: String,
    /// Its dtype.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: u64,
}

/// One module.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ModuleItem {
    /// Its name.
    pub name: String,
    /// Its parametrisation.
    pub family: &'static str,
    /// `linear`, `conv`, `embedding` or `whole`.
    pub kind: &'static str,
    /// Its rank.
    pub rank: usize,
    /// The alpha its scale was made of.
    pub alpha: Option<f64>,
    /// Its scale.
    pub scale: f64,
    /// Where the scale was read.
    pub scale_source: &'static str,
    /// Inputs.
    #[serde(rename = "in")]
    pub inputs: usize,
    /// Outputs.
    #[serde(rename = "out")]
    pub outputs: usize,
    /// Dtype of its factors.
    pub dtype: String,
    /// The base tensor it lands on, with `against`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_tensor: Option<String>,
    /// Where in the base its update lies, if that is not all of one tensor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Placement>,
    /// What keeps it from the place that its name leads to, with `against`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub misfit: Option<String>,
    /// Whether the base stores it inputs × outputs, with `against`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub transposed: bool,
    /// Its singular values, with `spectrum`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub spectrum: Option<SpectrumItem>,
}

/// The singular values of a module's delta, scale · B · A, and what they say. All are NaN, null in JSON,
/// where a factor holds a value that is not finite.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct SpectrumItem {
    /// Frobenius norm.
    pub norm: f64,
    /// Singular values, descending.
    pub singular_values: Vec<f64>,
    /// exp of the entropy of the normalised singular values.
    pub effective_rank: f64,
    /// Squared norm over the largest squared singular value.
    pub stable_rank: f64,
    /// The fewest ranks that keep 90, 95 and 99 % of the energy; none where values are not finite.
    pub rank_90: Option<usize>,
    /// As `rank_90`.
    pub rank_95: Option<usize>,
    /// As `rank_90`.
    pub rank_99: Option<usize>,
}

/// One tensor that replaces the base's.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ReplacementItem {
    /// What it replaces.
    pub name: String,
    /// How many rows, where it replaces some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    /// The base tensor it lands on, with `against`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_tensor: Option<String>,
}
