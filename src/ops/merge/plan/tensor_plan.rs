//! What becomes of one base tensor, and so which way of computing makes it: chosen once, while planning.

use serde::{Deserialize, Serialize};

use super::step::{Change, Difference, InputDelta, MethodStep, ReplaceStep, RowsStep, Step, Term};
use crate::adapter::tensor::element_type;
use crate::format::ggml::Blocks;
use crate::format::{Dtype, TensorView};
use crate::math::ElementType;

/// One tensor of the output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutputTensor {
    /// Its name in the file.
    pub name: String,
    /// Its name with its component's prefix, as reports call it.
    pub full_name: String,
    /// The base tensor it is made from, with its component's prefix.
    pub base: String,
    /// Its dtype.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What its bytes mean, if they are blocks of a GGUF file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
    /// Rows and columns of the matrix that it is computed as.
    pub matrix: (usize, usize),
    /// What becomes of the base tensor.
    pub plan: TensorPlan,
}

impl OutputTensor {
    /// The base tensor that it is made of as numbers, its dtype and its bytes.
    pub(in crate::ops::merge) fn source(&self) -> Option<(&str, Dtype, u64)> {
        let numbers = !matches!(self.plan, TensorPlan::Copy | TensorPlan::Encode(_));
        numbers.then(|| (self.base.as_str(), self.dtype, self.bytes()))
    }

    /// Its bytes in the file.
    pub(in crate::ops) fn bytes(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.dtype.bitsize() as u64 / 8
    }
}

/// What becomes of a base tensor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TensorPlan {
    /// Its bytes, as they are.
    Copy,
    /// Its values in another dtype.
    Convert,
    /// Its values and Σ weight · scale · B · A, by the fused kernel.
    Fused(Vec<Term>),
    /// Its values and differences of checkpoints, or what a method combines, from stored bytes to stored bytes.
    Direct(Direct),
    /// Its values after steps of several kinds, by panels in f64.
    Panels(Vec<Step>),
    /// A stored tensor of a weight that is quantised again.
    Encode(Encode),
}

/// One of the stored tensors of a weight that is quantised again after it has changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Encode {
    /// Its number among those that the weight's encoding writes; 0 has the codes.
    pub part: usize,
    /// The weight itself, as it would be written in F32.
    pub dense: Box<OutputTensor>,
}

/// What is all that is added to a tensor, where it is neither factors nor several things.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direct {
    /// Differences of fine-tuned checkpoints.
    Differences(Vec<Difference>),
    /// What a method combines.
    Method(Box<MethodStep>),
}

impl TensorPlan {
    /// The plan of a tensor: a change's steps where there is one, of a base tensor that becomes `dtype`.
    pub(in crate::ops::merge) fn choose(
        change: Option<&Change>,
        base: TensorView<'_>,
        dtype: Dtype,
    ) -> Self {
        let steps = change.map(Change::steps).unwrap_or_default();
        if steps.is_empty() {
            let same = dtype == base.spec.dtype && !base.is_computed();
            return if same { Self::Copy } else { Self::Convert };
        }
        // The fused kernel takes 16 and 32 bit.
        let is_wide = |dtype| element_type(dtype).is_some_and(ElementType::is_wide);
        let fused = !is_wide(base.spec.dtype) && !is_wide(dtype);
        if let Some(terms) = all(steps, factors).filter(|_| fused) {
            return Self::Fused(terms);
        }
        if let Some(differences) = all(steps, difference) {
            return Self::Direct(Direct::Differences(differences));
        }
        match steps {
            [Step::Method(step)] => Self::Direct(Direct::Method(step.clone())),
            _ => Self::Panels(steps.to_vec()),
        }
    }

    /// Whether anything is added, put in place or combined.
    pub fn changes(&self) -> bool {
        match self {
            Self::Copy | Self::Convert => false,
            Self::Fused(_) | Self::Direct(_) | Self::Panels(_) => true,
            Self::Encode(encode) => encode.part == 0,
        }
    }

    /// In one word, as a list of tensors has it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Convert => "convert",
            Self::Fused(_) | Self::Direct(_) | Self::Panels(_) => "change",
            Self::Encode(_) => "requantize",
        }
    }

    /// All steps by their kind.
    pub(in crate::ops) fn steps(&self) -> Steps<'_> {
        let mut found = Steps::default();
        match self {
            Self::Copy | Self::Convert => {}
            Self::Fused(terms) => found.factors.extend(terms),
            Self::Direct(Direct::Differences(differences)) => {
                found.differences.extend(differences);
            }
            Self::Direct(Direct::Method(step)) => found.method = Some(step),
            Self::Panels(steps) => steps.iter().for_each(|step| found.add(step)),
            Self::Encode(encode) => return encode.dense.plan.steps(),
        }
        found
    }

    /// What a method combines.
    pub(in crate::ops) fn method(&self) -> Option<&MethodStep> {
        self.steps().method
    }

    /// Whether nothing but differences of checkpoints is added, so that nothing changes where they are 0.
    pub(in crate::ops::merge) fn differences(&self) -> Option<Vec<&Difference>> {
        match self {
            Self::Direct(direct) => direct.differences(),
            Self::Copy | Self::Convert | Self::Fused(_) | Self::Panels(_) | Self::Encode(_) => None,
        }
    }
}

impl Direct {
    /// All differences, if there is nothing else.
    fn differences(&self) -> Option<Vec<&Difference>> {
        match self {
            Self::Differences(all) => Some(all.iter().collect()),
            Self::Method(step) => {
                let shares = step.shares.iter().map(|share| match &share.delta {
                    InputDelta::Difference(difference) => Some(difference),
                    InputDelta::Updates(_) => None,
                });
                shares.collect()
            }
        }
    }
}

/// The steps of a tensor by their kind: who computes takes each of the fields.
#[derive(Debug, Default)]
pub(in crate::ops) struct Steps<'a> {
    /// What takes the base's place.
    pub(in crate::ops) replace: Option<&'a ReplaceStep>,
    /// Differences of checkpoints.
    pub(in crate::ops) differences: Vec<&'a Difference>,
    /// What a method combines.
    pub(in crate::ops) method: Option<&'a MethodStep>,
    /// Updates that the kernel takes as factors.
    pub(in crate::ops) factors: Vec<&'a Term>,
    /// Updates that are made row by row.
    pub(in crate::ops) rowwise: Vec<&'a Term>,
    /// Updates that the weight goes into.
    pub(in crate::ops) transforms: Vec<&'a Term>,
    /// Rows that are put in place.
    pub(in crate::ops) rows: Vec<&'a RowsStep>,
}

impl<'a> Steps<'a> {
    fn add(&mut self, step: &'a Step) {
        match step {
            Step::Replace(step) => self.replace = Some(step),
            Step::Difference(step) => self.differences.push(step),
            Step::Method(step) => self.method = Some(step),
            Step::Factors(term) => self.factors.push(term),
            Step::Rowwise(term) => self.rowwise.push(term),
            Step::Transform(term) => self.transforms.push(term),
            Step::Rows(step) => self.rows.push(step),
        }
    }
}

/// What all steps are, if all are of one kind.
fn all<T>(steps: &[Step], kind: fn(&Step) -> Option<T>) -> Option<Vec<T>> {
    steps.iter().map(kind).collect()
}

fn factors(step: &Step) -> Option<Term> {
    match step {
        Step::Factors(term) => Some(term.clone()),
        _ => None,
    }
}

fn difference(step: &Step) -> Option<Difference> {
    match step {
        Step::Difference(difference) => Some(difference.clone()),
        _ => None,
    }
}
