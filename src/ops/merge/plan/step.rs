//! The steps from a base tensor, seen as a rows × columns matrix, to its result: plain data, enough to compute any
//! rows of it. What is added here has to be taken by every `match` on [`Step`] before it compiles.

use serde::{Deserialize, Serialize};

use super::region::Region;
use crate::method::Settings;

/// One step. The steps of a tensor are in the order of the variants; one rounding follows the last.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Puts values in the base's place.
    Replace(ReplaceStep),
    /// Adds the difference of a fine-tuned checkpoint.
    Difference(Difference),
    /// Adds what a method combines of the deltas of all inputs.
    Method(Box<MethodStep>),
    /// Adds an update that the kernel takes as factors. All of a tensor are multiplied together.
    Factors(Term),
    /// Adds an update that is made row by row.
    Rowwise(Term),
    /// W + weight · (F(W) − W), F being a module's own formula (DoRA, OFT, IA3, …), W being all that was added
    /// before. No two of them meet, so that each sees the weight without the other.
    Transform(Term),
    /// Puts rows in place.
    Rows(RowsStep),
}

impl Step {
    /// Its place among the steps of a tensor.
    fn order(&self) -> u8 {
        match self {
            Self::Replace(_) => 0,
            Self::Difference(_) => 1,
            Self::Method(_) => 2,
            Self::Factors(_) => 3,
            Self::Rowwise(_) => 4,
            Self::Transform(_) => 5,
            Self::Rows(_) => 6,
        }
    }

    /// Whether it updates the weight, rather than putting other values in its place.
    pub(in crate::ops) fn updates(&self) -> bool {
        match self {
            Self::Replace(_) | Self::Rows(_) => false,
            Self::Difference(_)
            | Self::Method(_)
            | Self::Factors(_)
            | Self::Rowwise(_)
            | Self::Transform(_) => true,
        }
    }

    /// The values that it puts in place, if it is such a step.
    pub(in crate::ops::merge) fn replacing(&self) -> Option<&ReplaceStep> {
        match self {
            Self::Replace(step) => Some(step),
            Self::Rows(step) => Some(&step.values),
            Self::Difference(_)
            | Self::Method(_)
            | Self::Factors(_)
            | Self::Rowwise(_)
            | Self::Transform(_) => None,
        }
    }
}

/// All that happens to one tensor, while the plan is being made.
#[derive(Debug, Clone, Default)]
pub(in crate::ops) struct Change {
    /// Rows: the first dimension (1 for a vector), of a stack those of all its matrices.
    pub(in crate::ops::merge) rows: usize,
    /// Columns: all other dimensions.
    pub(in crate::ops::merge) columns: usize,
    /// In the order they are taken.
    steps: Vec<Step>,
}

impl Change {
    /// No steps yet, of a rows × columns matrix.
    pub(in crate::ops::merge) fn new((rows, columns): (usize, usize)) -> Self {
        Self { rows, columns, steps: Vec::new() }
    }

    /// Takes up a step, behind those that come before it.
    pub(in crate::ops::merge) fn add(&mut self, step: Step) {
        let at = self.steps.partition_point(|before| before.order() <= step.order());
        self.steps.insert(at, step);
    }

    /// The steps, in the order they are taken.
    pub(in crate::ops::merge) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Takes all steps away, to make others of them.
    pub(in crate::ops::merge) fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// Whether there is no step.
    pub(in crate::ops::merge) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether anything is updated, not only replaced.
    pub(in crate::ops::merge) fn updates(&self) -> bool {
        self.steps.iter().any(Step::updates)
    }

    /// The values that take the base's place.
    pub(in crate::ops::merge) fn replace(&self) -> Option<&ReplaceStep> {
        self.steps.iter().find_map(|step| match step {
            Step::Replace(step) => Some(step),
            _ => None,
        })
    }

    /// What a method combines.
    pub(in crate::ops::merge) fn method_mut(&mut self) -> Option<&mut MethodStep> {
        self.steps.iter_mut().find_map(|step| match step {
            Step::Method(step) => Some(&mut **step),
            _ => None,
        })
    }

    /// The updates that the weight goes into.
    pub(in crate::ops::merge) fn transforms(&self) -> impl Iterator<Item = &Term> {
        self.steps.iter().filter_map(|step| match step {
            Step::Transform(term) => Some(term),
            _ => None,
        })
    }

    /// Whether an update that the weight goes into meets a region, or anything at all if none.
    pub(in crate::ops::merge) fn is_transformed(&self, region: Option<&Region>) -> bool {
        self.transforms().any(|term| Region::meet(term.region.as_ref(), region))
    }
}

/// How an update lies in the stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TermForm {
    /// A module's update, as outputs × inputs.
    Product,
    /// Its transpose, as inputs × outputs: GPT-2's Conv1D, embeddings.
    Transposed,
    /// A module's tensor for the bias, as a row.
    Bias,
}

/// weight · scale · update, from one module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Term {
    /// Number of the adapter.
    pub adapter: usize,
    /// Number of the module in it.
    pub module: usize,
    /// Which way round, or its bias.
    pub source: TermForm,
    /// The user's weight; of an [`InputShare`], what the module's is to the input's.
    pub weight: f64,
    /// The module's own scale.
    pub scale: f64,
    /// Where in the tensor; everywhere if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
}

impl Term {
    /// What its update is multiplied by.
    pub(in crate::ops) fn coefficient(&self) -> f64 {
        self.weight * self.scale
    }
}

/// weight · (T − W), T being a tensor of a fine-tuned checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Difference {
    /// Number of the checkpoint.
    pub tuned: usize,
    /// Name of T in it.
    pub tensor: String,
    /// The user's weight.
    pub weight: f64,
}

/// The deltas of all inputs that have a share in a tensor, for the merge's method to combine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MethodStep {
    /// The tensor's name, which chooses its random numbers.
    pub name: String,
    /// The weights of all inputs, those without a share too.
    pub weights: Vec<f64>,
    /// The shares, in the inputs' order.
    pub shares: Vec<InputShare>,
    /// The method's parameters, where they are others than the whole merge's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
}

/// One input's delta; its weight apart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InputShare {
    /// Number of the input, checkpoints and adapters counted together.
    pub input: usize,
    /// The user's weight.
    pub weight: f64,
    /// Its delta, in its own weight.
    pub delta: InputDelta,
}

/// What one input adds to a tensor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputDelta {
    /// Updates of an adapter.
    Updates(Vec<Term>),
    /// The difference of a checkpoint; its weight is 1.
    Difference(Difference),
}

/// W + weight · (R − W).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplaceStep {
    /// Number of the adapter.
    pub adapter: usize,
    /// Name of R in its file.
    pub tensor: String,
    /// The user's weight; 1 puts R's very values in place.
    pub weight: f64,
}

/// As [`ReplaceStep`], for some rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
