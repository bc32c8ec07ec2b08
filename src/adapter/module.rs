//! What an adapter holds: modules with low-rank factors, and values that replace the base's.

use serde::Serialize;

use super::scale::Scale;

/// How a module's update is parametrised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// scale · B · A is added.
    Lora,
    /// W + scale · B · A, its rows rescaled to a learnt magnitude.
    Dora,
}

impl Family {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::Dora => "dora",
        }
    }
}

/// What kind of layer a module adapts, as far as its factors tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A matrix product.
    Linear,
    /// A convolution with this kernel; factors are flattened to out × in·kernel.
    Conv(Vec<usize>),
    /// A table of vectors: the base stores in × out.
    Embedding,
}

/// One adapted weight.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its name in the convention's own form.
    pub name: String,
    /// Its parametrisation.
    pub family: Family,
    /// Its kind of layer.
    pub kind: Kind,
    /// Rank of the factors.
    pub rank: usize,
    /// Inputs of the layer; of a convolution, channels × kernel.
    pub inputs: usize,
    /// Outputs of the layer.
    pub outputs: usize,
    /// Scale of B · A and where it is from.
    pub scale: Scale,
    /// Name of A's tensor, rank × inputs.
    pub down: String,
    /// Name of B's tensor, outputs × rank.
    pub up: String,
    /// Name of the tensor that scale times is added to the base's bias.
    pub up_bias: Option<String>,
    /// Name of DoRA's magnitudes, one an output.
    pub magnitude: Option<String>,
}

impl Module {
    /// Shape of the update as the base stores it, where the base is not transposed.
    pub fn shape(&self) -> Vec<usize> {
        match &self.kind {
            Kind::Linear => vec![self.outputs, self.inputs],
            Kind::Embedding => vec![self.inputs, self.outputs],
            Kind::Conv(kernel) => {
                let channels = self.inputs / kernel.iter().product::<usize>().max(1);
                [self.outputs, channels].into_iter().chain(kernel.iter().copied()).collect()
            }
        }
    }

    /// Values that the module's factors, bias and magnitudes hold.
    pub fn parameters(&self) -> usize {
        let bias = if self.up_bias.is_some() { self.outputs } else { 0 };
        let magnitude = if self.magnitude.is_some() { self.outputs } else { 0 };
        self.rank * (self.inputs + self.outputs) + bias + magnitude
    }

    /// Names of all tensors the module reads.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        [Some(&self.down), Some(&self.up), self.up_bias.as_ref(), self.magnitude.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
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
