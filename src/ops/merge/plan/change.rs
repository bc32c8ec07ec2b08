//! What happens to one base tensor: plain data, enough to compute any rows of the result.

use serde::Serialize;

use super::region::Region;
use crate::method::Settings;

/// What becomes of a base tensor.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Its bytes, as they are.
    Copy,
    /// Its values in another dtype.
    Convert,
    /// Its values, changed.
    Change(Change),
}

/// The steps from a base tensor, seen as a rows × columns matrix, to its result: replace, add the
/// terms, rescale, put rows in place; then one rounding.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Change {
    /// Rows: the first dimension (1 for a vector).
    pub rows: usize,
    /// Columns: all other dimensions.
    pub columns: usize,
    /// Values that take the base's place first.
    pub replace: Option<ReplaceStep>,
    /// Low-rank updates to add.
    pub terms: Vec<Term>,
    /// Updates to add that are made row by row.
    pub additions: Vec<Term>,
    /// Differences of fine-tuned checkpoints to add.
    pub differences: Vec<Difference>,
    /// What a method combines, in place of a sum of the above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blend: Option<Box<BlendStep>>,
    /// Updates that the weight goes into, after all that is added; no two of them meet.
    pub transforms: Vec<TransformStep>,
    /// Rows that are put in place last.
    pub row_steps: Vec<RowsStep>,
}

impl Change {
    /// Whether there is any step.
    pub fn is_empty(&self) -> bool {
        self.replace.is_none() && !self.updates() && self.row_steps.is_empty()
    }

    /// Whether anything is updated, not only replaced.
    pub fn updates(&self) -> bool {
        !self.terms.is_empty()
            || !self.additions.is_empty()
            || !self.differences.is_empty()
            || self.blend.is_some()
            || !self.transforms.is_empty()
    }

    /// Whether an update that the weight goes into meets a region, or anything at all if none.
    pub(in crate::ops::merge) fn transformed(&self, region: Option<&Region>) -> bool {
        self.transforms.iter().any(|step| Region::meet(step.term.region.as_ref(), region))
    }

    /// Whether differences are the only steps, so that nothing changes where they are 0.
    pub fn only_differences(&self) -> bool {
        self.replace.is_none()
            && self.terms.is_empty()
            && self.additions.is_empty()
            && self.transforms.is_empty()
            && self.row_steps.is_empty()
            && self.blend.iter().flat_map(|blend| &blend.parts).all(|part| part.updates.is_empty())
    }

    /// Whether either differences or a blend are the only step.
    pub(in crate::ops::merge) fn only_moves(&self) -> bool {
        self.replace.is_none()
            && self.terms.is_empty()
            && self.additions.is_empty()
            && self.transforms.is_empty()
            && self.row_steps.is_empty()
            && self.differences.is_empty() == self.blend.is_some()
    }

    /// Whether terms are the only steps, so that the fused kernel does it all.
    pub fn only_terms(&self) -> bool {
        self.replace.is_none()
            && self.additions.is_empty()
            && self.transforms.is_empty()
            && self.differences.is_empty()
            && self.blend.is_none()
            && self.row_steps.is_empty()
    }
}

/// How an update lies in the stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A module's update, as outputs × inputs.
    Product,
    /// Its transpose, as inputs × outputs: GPT-2's Conv1D, embeddings.
    Transposed,
    /// A module's tensor for the bias, as a row.
    Bias,
}

/// coefficient · update, from one module.
#[derive(Debug, Clone, Serialize)]
pub struct Term {
    /// Number of the adapter.
    pub adapter: usize,
    /// Number of the module in it.
    pub module: usize,
    /// Which way round, or its bias.
    pub source: Source,
    /// Weight × scale.
    pub coefficient: f64,
    /// Where in the tensor; everywhere if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
}

/// weight · (T − W), T being a tensor of a fine-tuned checkpoint.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// Number of the checkpoint.
    pub tuned: usize,
    /// Name of T in it.
    pub tensor: String,
    /// The user's weight.
    pub weight: f64,
}

/// The deltas of all inputs that have a part in a tensor, for the merge's method to combine.
#[derive(Debug, Clone, Serialize)]
pub struct BlendStep {
    /// The tensor's name, which chooses its random numbers.
    pub name: String,
    /// The weights of all inputs, those without a part too.
    pub weights: Vec<f64>,
    /// The parts, in the inputs' order.
    pub parts: Vec<BlendPart>,
    /// The method's parameters, where they are others than the whole merge's.
    #[serde(skip)]
    pub settings: Option<Settings>,
}

/// One input's delta; weights apart.
#[derive(Debug, Clone, Serialize)]
pub struct BlendPart {
    /// Number of the input, checkpoints and adapters counted together.
    pub input: usize,
    /// The user's weight.
    pub weight: f64,
    /// Updates of an adapter; the coefficient is the scale alone.
    pub updates: Vec<Term>,
    /// The difference of a checkpoint; its weight is 1.
    pub differences: Vec<Difference>,
}

/// W + weight · (F(W) − W), F being a module's own formula (DoRA, OFT, IA3, …).
#[derive(Debug, Clone, Serialize)]
pub struct TransformStep {
    /// The module; the coefficient is its scale alone.
    pub term: Term,
    /// The user's weight.
    pub weight: f64,
}

/// W + weight · (R − W).
#[derive(Debug, Clone, Serialize)]
pub struct ReplaceStep {
    /// Number of the adapter.
    pub adapter: usize,
    /// Name of R in its file.
    pub tensor: String,
    /// The user's weight; 1 puts R's very values in place.
    pub weight: f64,
}

/// As [`ReplaceStep`], for some rows.
#[derive(Debug, Clone, Serialize)]
pub struct RowsStep {
    /// The replacing values, one row for each index.
    pub values: ReplaceStep,
    /// Which rows of the base they replace.
    pub rows: Vec<usize>,
}

/// A tensor of an adapter that the result has beside the base's.
#[derive(Debug, Clone)]
pub(in crate::ops::merge) struct Added {
    /// Its name.
    pub(in crate::ops::merge) name: String,
    /// Its shape.
    pub(in crate::ops::merge) shape: Vec<usize>,
    /// Its values.
    pub(in crate::ops::merge) values: ReplaceStep,
}

/// A tensor as rows × columns: the first dimension by all others; a vector is one row.
pub(in crate::ops) fn as_matrix(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [length] => (1, *length),
        [rows, rest @ ..] => (*rows, rest.iter().product()),
    }
}
