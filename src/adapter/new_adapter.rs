//! An adapter to be written: modules with new factors, and what it is encoded to.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::key::Part;
use super::module::{Kind, Replaces};
use super::stack_names::Stack;
use crate::error::{ErrorKind, Result};
use crate::format::access::Source;
use crate::format::gguf::is_gguf;
use crate::format::{Dtype, Metadata, Tensor};
use crate::math::LowRank;
use crate::weight::element::{decoded, encoded, float_type};

/// A tensor of a module: its part, dtype, shape and bytes.
pub type PartTensor = (Part, Dtype, Vec<usize>, Vec<u8>);

/// A module to write: its tensors, already in the dtypes they will have, and the scale of their update.
#[derive(Debug, Clone)]
pub struct NewModule {
    /// Its name in the convention it will be written in.
    pub name: String,
    /// Its rank.
    pub rank: usize,
    /// What its update is multiplied by.
    pub scale: f64,
    /// The alpha that makes this scale, where it is known to be more exact than scale times rank.
    pub alpha: Option<f64>,
    /// Its tensors; an alpha of their own wins over the scale.
    pub tensors: Vec<PartTensor>,
}

impl NewModule {
    /// Stores factors of out × rank and rank × in, and what is added to the bias; see [`bias_part`](super::save::bias_part).
    ///
    /// # Errors
    /// If a value overflows the dtype.
    pub fn new(
        name: &str,
        kind: &Kind,
        factors: &LowRank,
        scale: f64,
        bias: Option<(Part, &[f64])>,
        dtype: Dtype,
    ) -> Result<Self> {
        let (outputs, inputs, rank) = (factors.rows(), factors.columns(), factors.rank());
        let [(down_part, down_shape), (up_part, up_shape)] = shapes(kind, outputs, inputs, rank);
        // nalgebra keeps columns together, files keep rows together.
        let up = encode(dtype, factors.up.transpose().as_slice())?;
        let down = encode(dtype, factors.down.transpose().as_slice())?;
        let mut tensors =
            vec![(down_part, dtype, down_shape, down), (up_part, dtype, up_shape, up)];
        if let Some((part, values)) = bias {
            tensors.push((part, dtype, vec![outputs], encode(dtype, values)?));
        }
        Ok(Self { name: name.to_owned(), rank, scale, alpha: None, tensors })
    }

    /// A module of stored differences, which have neither rank nor scale.
    pub fn stored(name: String, tensors: Vec<PartTensor>) -> Self {
        Self { name, rank: 0, scale: 1.0, alpha: None, tensors }
    }

    /// The alpha that makes its scale: scale times rank.
    pub(super) fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(self.scale * self.rank as f64)
    }

    /// Whether a factor holds zeros alone, of either sign.
    pub fn is_zero(&self) -> bool {
        use Part::{Down, EmbeddingDown, EmbeddingUp, Up};
        let factors =
            self.tensors.iter().filter(|t| matches!(t.0, Down | Up | EmbeddingDown | EmbeddingUp));
        // A few at a time: most end the search at once.
        let zeros = |(_, dtype, _, bytes): &PartTensor| {
            bytes.chunks(512).all(|bytes| {
                decoded(*dtype, bytes).is_ok_and(|values| values.iter().all(|value| *value == 0.0))
            })
        };
        factors.into_iter().any(zeros)
    }

    /// Whether it has a tensor of this part.
    pub(super) fn has(&self, part: Part) -> bool {
        self.tensors.iter().any(|tensor| tensor.0 == part)
    }
}

/// A tensor that replaces the base's, as it was stored.
#[derive(Debug, Clone)]
pub struct NewReplacement {
    /// The module it belongs to.
    pub module: String,
    /// What it replaces.
    pub replaces: Replaces,
    /// Its dtype.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl NewReplacement {
    /// What its tensor is to the module.
    pub(super) fn part(&self) -> Part {
        match &self.replaces {
            Replaces::Weight => Part::Weight,
            Replaces::Bias => Part::Bias,
            Replaces::Rows(_) => Part::TokenRows,
        }
    }
}

/// A whole adapter to write.
#[derive(Debug, Clone)]
pub struct NewAdapter {
    /// Its modules.
    pub modules: Vec<NewModule>,
    /// Its replacements.
    pub replacements: Vec<NewReplacement>,
    /// Header metadata to carry and add.
    pub metadata: Metadata,
    /// Config fields to carry, of the first input that has a config.
    pub config: Option<Map<String, Value>>,
    /// Stacks that modules of single experts are parts of, by the parameter's name.
    pub stacks: BTreeMap<String, Stack>,
    /// `target_modules`, where suffixes say it; else the modules' full names are listed.
    pub target_modules: Option<Vec<String>>,
    /// All of it, where that is known already; then there are no modules.
    pub kept: Option<Kept>,
}

/// Tensors and a config that are not made anew.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The tensors under the names they will have.
    pub tensors: Vec<Tensor>,
    /// The config.
    pub config: Map<String, Value>,
}

/// What goes to disk.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Name, dtype, shape and bytes, in file order.
    pub tensors: Vec<Tensor>,
    /// The header's metadata.
    pub metadata: Metadata,
    /// `adapter_config.json`, where the convention has one.
    pub config: Option<Vec<u8>>,
    /// Whether these are a directory or one file.
    pub output: Output,
    /// The format of the tensor file.
    pub container: Container,
    /// Files beside these, by name.
    pub beside: Vec<(&'static str, Vec<u8>)>,
}

/// What a writer makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A directory of `adapter_config.json` and this file.
    Directory(&'static str),
    /// One file with this ending.
    File(&'static str),
    /// Nothing: the grammar is only read.
    Never,
}

/// An adapter of llama.cpp's that lies in a directory.
pub(super) const GGUF_NAME: &str = "adapter.gguf";

/// The format of a tensor file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// safetensors.
    Safetensors,
    /// llama.cpp's.
    Gguf,
}

impl Container {
    /// The format of a file, by how it begins.
    pub(super) fn of(source: &Source) -> Self {
        if is_gguf(source) { Self::Gguf } else { Self::Safetensors }
    }
}

/// What a sidecar says of a module that is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Described<'a> {
    /// Its name in the convention.
    pub(crate) name: &'a str,
    /// Its rank.
    pub(crate) rank: usize,
    /// Its alpha.
    pub(crate) alpha: f64,
    /// Its scale.
    pub(crate) scale: f64,
    /// Whether it is a stored difference, which has neither rank nor scale.
    pub(crate) stored: bool,
    /// Whether it has magnitudes.
    pub(crate) dora: bool,
    /// Whether B has a bias.
    pub(crate) bias: bool,
}

impl<'a> From<&'a NewModule> for Described<'a> {
    fn from(module: &'a NewModule) -> Self {
        Self {
            name: &module.name,
            rank: module.rank,
            alpha: module.alpha(),
            scale: module.scale,
            stored: module.rank == 0,
            dora: module.has(Part::Magnitude),
            bias: module.has(Part::UpBias),
        }
    }
}

/// Tensors that a module of this kind has at some rank: (part, shape).
pub(super) fn shapes(
    kind: &Kind,
    rows: usize,
    columns: usize,
    rank: usize,
) -> [(Part, Vec<usize>); 2] {
    match kind {
        Kind::Linear | Kind::Channels | Kind::Whole(_) => {
            [(Part::Down, vec![rank, columns]), (Part::Up, vec![rows, rank])]
        }
        Kind::Embedding => {
            [(Part::EmbeddingDown, vec![rank, columns]), (Part::EmbeddingUp, vec![rows, rank])]
        }
        Kind::Conv(kernel) => {
            let channels = columns / kernel.iter().product::<usize>().max(1);
            let down = [rank, channels].into_iter().chain(kernel.iter().copied()).collect();
            let up = [rows, rank].into_iter().chain(kernel.iter().map(|_| 1)).collect();
            [(Part::Down, down), (Part::Up, up)]
        }
    }
}

/// Values in the bytes of a dtype, or which of them it does not reach.
///
/// # Errors
/// [`ErrorKind::BadDtype`] and [`ErrorKind::Overflow`].
pub(super) fn encode(dtype: Dtype, values: &[f64]) -> Result<Vec<u8>> {
    let bytes = encoded(dtype, values)?;
    let limit = float_type(dtype)?.largest();
    // A NaN fits nowhere.
    let fits = |value: &f64| value.abs() <= limit;
    match values.iter().position(|value| !fits(value)) {
        None => Ok(bytes),
        Some(index) => {
            let value = values.get(index).copied().unwrap_or(f64::NAN);
            Err(ErrorKind::Overflow { index, value, dtype: dtype.to_string() }.into())
        }
    }
}
