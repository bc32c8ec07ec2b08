//! What an adapter holds: modules, each with a form that makes its update, and values that replace
//! the base's.

use std::fmt::Debug;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::scale::Scale;
use crate::error::{ErrorKind, Result};
use crate::format::Checkpoint;
use crate::math::{Composite, Factor, LowRank, RowMatrix, Transform};

/// What kind of layer a module adapts, as far as its tensors tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A matrix product; or a convolution whose kernel the flattened factors do not tell.
    Linear,
    /// A convolution with this kernel; factors are flattened to out × in·kernel.
    Conv(Vec<usize>),
    /// A table of vectors: the base stores in × out.
    Embedding,
    /// A convolution of any kernel; its inputs are counted as channels.
    Channels,
    /// A tensor of exactly this shape, whatever it is of.
    Whole(Vec<usize>),
}

/// How an update relates to the weight it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Nature {
    /// A matrix of at most this rank is added; the adapter alone says it.
    LowRank(usize),
    /// A tensor as large as the weight is added; the adapter alone says it.
    Full,
    /// A matrix of any rank is added, made of fewer numbers; the adapter and the weight's shape say it.
    Dense,
    /// The weight itself goes into the update, so that updates do not add up.
    Dependent,
}

/// A module's update, its tensors read; the scale is left out.
#[derive(Debug, Clone)]
pub enum Update {
    /// up · down is added, as the file stores them.
    Factors(Factor, Factor),
    /// up · down is added.
    LowRank(LowRank),
    /// A Hadamard or Kronecker product is added.
    Composite(Composite),
    /// A matrix that is made row by row is added.
    Rows(RowMatrix),
    /// The stored tensor of this name is added.
    Stored(String),
    /// The weight is transformed; this includes the scale.
    Transform(Transform),
}

/// A parametrisation with the names of its tensors in place: one implementation a family.
pub trait Form: Debug + Send + Sync {
    /// Names of all tensors it is made of.
    fn tensors(&self) -> Vec<&str>;

    /// How its update relates to the weight.
    fn nature(&self) -> Nature;

    /// Reads the tensors. `shape` is (outputs, inputs) of the weight, a convolution's flattened.
    ///
    /// # Errors
    /// If reading fails, or the form cannot be one of a weight of this shape.
    fn load(&self, file: &Checkpoint, shape: (usize, usize)) -> Result<Update>;

    /// What becomes of the layer's bias, a row of `outputs`, where its effect is [`BiasEffect::Transform`].
    ///
    /// # Errors
    /// If reading fails, or the form does nothing of the kind.
    fn bias(&self, _file: &Checkpoint, _outputs: usize) -> Result<Transform> {
        Err(ErrorKind::NotFound.into())
    }

    /// Why a module of the family stays in the conventions that have it, where its update has no factors.
    fn bound(&self) -> Option<Bound> {
        None
    }

    /// Whether its tensors would have a convolution's kernel, had the module one.
    fn has_kernel(&self) -> bool {
        false
    }

    /// Whether its tensors are also other modules', of which it is a part.
    fn is_part(&self) -> bool {
        false
    }

    /// Fails if the form cannot be one of a weight of (outputs, inputs), beyond what
    /// [`Module::outputs`] and [`Module::inputs`] say.
    ///
    /// # Errors
    /// What does not fit.
    fn check(&self, _shape: (usize, usize)) -> Result<()> {
        Ok(())
    }
}

/// Whose tensors and formulas a family beside LoRA has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// PEFT's types of adapters.
    Peft,
    /// LyCORIS' and those of kohya's scripts.
    Lycoris,
}

/// Why a module can be said in no other convention.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// In one of the other dialect.
    pub other_dialect: &'static str,
    /// In one that has factors alone.
    pub no_factors: &'static str,
}

impl Bound {
    /// Rotations, which the two dialects have of different sides.
    pub(super) const fn rotation(other_dialect: &'static str) -> Self {
        Self { other_dialect, no_factors: "it rotates the base's weights, which no factors do" }
    }

    /// Families that only PEFT has.
    pub(super) const PEFT_ALONE: Self =
        Self { other_dialect: "only PEFT has the family", no_factors: "only PEFT has the family" };
}

/// Which side of a weight has one magnitude each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Its outputs.
    Outputs,
    /// Its inputs; of a convolution, its channels.
    Inputs,
}

/// Weight decomposition (DoRA): after the update every vector along the other side gets a learnt magnitude.
#[derive(Debug, Clone)]
pub struct Magnitude {
    /// Name of the tensor of magnitudes.
    pub tensor: String,
    /// What has a magnitude each.
    pub side: Side,
    /// What is added to the norms that are divided by.
    pub epsilon: f64,
}

/// What a module does to its layer's bias.
#[derive(Debug, Clone)]
pub struct Bias {
    /// Name of the tensor of as many values as there are outputs.
    pub tensor: String,
    /// How many values it has.
    pub length: usize,
    /// What it does.
    pub effect: BiasEffect,
}

/// See [`Bias`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BiasEffect {
    /// Scale times it is added.
    AddScaled,
    /// It is added.
    Add,
    /// The bias, if there is one, is multiplied by it.
    Multiply,
    /// The bias, if there is one, goes through [`Form::bias`].
    Transform,
}

impl BiasEffect {
    /// Whether the bias itself goes into the result, so that a layer without one has nothing to change.
    pub fn transforms(self) -> bool {
        matches!(self, Self::Multiply | Self::Transform)
    }
}

/// One adapted weight.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its name in the convention's own form.
    pub name: String,
    /// Its parametrisation, as reports call it.
    pub family: &'static str,
    /// Its kind of layer.
    pub kind: Kind,
    /// The rank the family speaks of; 0 where it has none.
    pub rank: usize,
    /// Inputs of the layer; of a convolution, channels × kernel ([`Kind::Channels`] says no kernel). 0
    /// where the tensors do not tell.
    pub inputs: usize,
    /// Outputs of the layer. 0 where the tensors do not tell.
    pub outputs: usize,
    /// Scale of the update and where it is from.
    pub scale: Scale,
    /// What makes the update.
    pub form: Arc<dyn Form>,
    /// The tensor for the layer's bias.
    pub bias: Option<Bias>,
    /// Magnitudes that the updated weight gets.
    pub magnitude: Option<Magnitude>,
}

impl Module {
    /// Shape of the update as the base stores it, where the base is not transposed; 0 where unknown.
    pub fn shape(&self) -> Vec<usize> {
        match &self.kind {
            Kind::Linear | Kind::Channels => vec![self.outputs, self.inputs],
            Kind::Embedding => vec![self.inputs, self.outputs],
            Kind::Conv(kernel) => {
                let channels = self.inputs / kernel.iter().product::<usize>().max(1);
                [self.outputs, channels].into_iter().chain(kernel.iter().copied()).collect()
            }
            Kind::Whole(shape) => shape.clone(),
        }
    }

    /// How the update relates to the weight.
    pub fn nature(&self) -> Nature {
        if self.magnitude.is_some() { Nature::Dependent } else { self.form.nature() }
    }

    /// Rank of the update's factorisation; none if it has none without the base.
    pub fn delta_rank(&self) -> Option<usize> {
        match self.nature() {
            Nature::LowRank(rank) if self.inputs > 0 && self.outputs > 0 => Some(rank),
            _ => None,
        }
    }

    /// The tensor that is added to the base's bias, and what it is multiplied by.
    pub fn added_bias(&self) -> Option<(&str, f64)> {
        let bias = self.bias.as_ref()?;
        match bias.effect {
            BiasEffect::AddScaled => Some((&bias.tensor, self.scale.value)),
            BiasEffect::Add => Some((&bias.tensor, 1.0)),
            BiasEffect::Multiply | BiasEffect::Transform => None,
        }
    }

    /// Names of all tensors the module reads.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        let bias = self.bias.as_ref().map(|bias| bias.tensor.as_str());
        let magnitude = self.magnitude.as_ref().map(|magnitude| magnitude.tensor.as_str());
        self.form.tensors().into_iter().chain(bias).chain(magnitude)
    }
}

/// What a replacement replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replaces {
    /// The module's weight.
    Weight,
    /// The module's bias.
    Bias,
    /// Some rows of the module's weight, by index.
    Rows(Vec<usize>),
}

/// Values that take the place of the base's: `modules_to_save`, trained biases, trained tokens.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// The module they belong to.
    pub module: String,
    /// What they replace.
    pub replaces: Replaces,
    /// Name of the tensor in the adapter's file.
    pub tensor: String,
}

impl Replacement {
    /// The module's name with what is replaced: `score.weight`.
    pub fn label(&self) -> String {
        let ending = if self.replaces == Replaces::Bias { "bias" } else { "weight" };
        format!("{}.{ending}", self.module)
    }
}
