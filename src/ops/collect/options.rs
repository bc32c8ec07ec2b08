//! What is asked of a collection.

use std::path::PathBuf;

use crate::adapter::OpenOptions;
use crate::format::Dtype;

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// In a dtype.
    Float(Dtype),
    /// In whole numbers of eight bits, a scale in f32 for every direction and every row of a core.
    Int8,
}

impl Number {
    /// The dtype of the tensors.
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::Float(dtype) => dtype,
            Self::Int8 => Dtype::I8,
        }
    }
}

/// What to collect, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Folders of adapters; single adapters too.
    pub paths: Vec<PathBuf>,
    /// Where the collection goes: a directory.
    pub output: PathBuf,
    /// Directions that a module's updates share, on either side.
    pub rank: usize,
    /// Groups of adapters that have directions of their own; 1 for all in one.
    pub clusters: usize,
    /// Write plain adapters instead, with one A for all of a group.
    pub common_a: bool,
    /// How numbers are stored; as the widest of the inputs if `None`.
    pub number: Option<Number>,
    /// What random numbers are drawn by.
    pub seed: u64,
    /// How adapters are opened.
    pub open: OpenOptions,
    /// Replace an existing output.
    pub force: bool,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}
