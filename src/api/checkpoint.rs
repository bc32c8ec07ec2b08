//! A model's weights, by name.

use std::ops::Range;
use std::path::Path;

use crate::error::{ErrorKind, Locate, Result};
use crate::format::{self, Access};
use crate::weight::{Weight, Weights};

/// Rows of the weights of a model, whatever they are stored as: a `.safetensors` file, an index or a directory of
/// shards, quantised or not.
///
/// ```
/// use lora_tool::Checkpoint;
///
/// let base = Checkpoint::open("fixtures/llama/base")?;
/// let weight = base.tensor("model.layers.0.self_attn.q_proj.weight").expect("a Llama's");
/// let first = weight.rows(0..1)?;
/// assert_eq!(Some(&first.len()), weight.shape().last());
/// # Ok::<(), lora_tool::Error>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    file: format::Checkpoint,
    weights: Weights,
}

impl Checkpoint {
    /// Opens a file, an index, or a directory; only headers are read.
    ///
    /// # Errors
    /// If there is none, a shard is missing or broken, or its weights are quantised in a way that is not known.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = format::Checkpoint::open(path, Access::Map)?;
        let weights = Weights::of(&file).in_file(path)?;
        Ok(Self { file, weights })
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Its tensors, by name. A quantised weight is one tensor, under the name that it has unquantised.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.weights.iter().map(Tensor)
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.weights.get(name).map(Tensor)
    }
}

/// One tensor of a [`Checkpoint`].
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a>(&'a Weight);

impl<'a> Tensor<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        &self.0.name
    }

    /// Its shape, outermost dimension first.
    pub fn shape(&self) -> &'a [usize] {
        &self.0.shape
    }

    /// What it is stored as: `plain`, or the name of the quantised encoding.
    pub fn encoding(&self) -> &'static str {
        self.0.encoding
    }

    /// Rows of its values in f32, row after row. Rows have the length of the last dimension; a tensor of more than
    /// two dimensions has the product of all others of them.
    ///
    /// # Errors
    /// If the rows are not there, or reading fails.
    pub fn rows(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let (all, columns) = self.0.matrix();
        if rows.start > rows.end || rows.end > all {
            let reason = format!("rows {rows:?} are asked for, and there are {all}");
            return Err(ErrorKind::BadOption(reason)).in_tensor(&self.0.name);
        }
        let mut values = vec![0.0; rows.len() * columns];
        self.0.rows(rows, &mut values)?;
        Ok(values)
    }
}
