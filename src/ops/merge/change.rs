//! What happens to one base tensor: plain data, enough to compute any rows of the result.

use serde::Serialize;

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
    /// A DoRA adapter, after the terms.
    pub dora: Option<DoraStep>,
    /// Rows that are put in place last.
    pub row_steps: Vec<RowsStep>,
}

impl Change {
    /// Whether there is any step.
    pub fn is_empty(&self) -> bool {
        self.replace.is_none()
            && self.terms.is_empty()
            && self.dora.is_none()
            && self.row_steps.is_empty()
    }

    /// Whether terms are the only steps, so that the fused kernel does it all.
    pub fn only_terms(&self) -> bool {
        self.replace.is_none() && self.dora.is_none() && self.row_steps.is_empty()
    }
}

/// Where an update's factors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// B · A of a module, as outputs × inputs.
    Product,
    /// (B · A)ᵀ of a module, as inputs × outputs: GPT-2's Conv1D, embeddings.
    Transposed,
    /// The bias of a module's B, as a row.
    Bias,
}

/// coefficient · left · right, from one module.
#[derive(Debug, Clone, Serialize)]
pub struct Term {
    /// Number of the adapter.
    pub adapter: usize,
    /// Number of the module in it.
    pub module: usize,
    /// Which of its factors.
    pub source: Source,
    /// Weight × scale.
    pub coefficient: f64,
}

/// The axis that a magnitude belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// One a row.
    Rows,
    /// One a column.
    Columns,
}

/// W + weight · (DoRA(W) − W), with DoRA(W) = m/‖V‖ · V and V = W + the term.
#[derive(Debug, Clone, Serialize)]
pub struct DoraStep {
    /// The update inside V; its coefficient is the scale alone.
    pub term: Term,
    /// Which axis the module's outputs are in the base.
    pub axis: Axis,
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
