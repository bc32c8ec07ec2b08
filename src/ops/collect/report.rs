//! What a collection holds, and how far its adapters are from what they were.

use std::path::PathBuf;

use serde::Serialize;

use super::document::Member;

/// An adapter of a collection.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The group that it shares directions with, from 0.
    pub cluster: usize,
    /// ‖update − stored‖ / ‖update‖ over all modules, rounding to the stored numbers included.
    pub relative_error: f64,
    /// ‖update‖.
    pub norm: f64,
    /// Modules that it has.
    pub modules: usize,
}

impl From<&Member> for Entry {
    fn from(member: &Member) -> Self {
        Self {
            name: member.name.clone(),
            cluster: member.cluster,
            relative_error: member.error,
            norm: member.norm,
            modules: member.ranks.iter().filter(|rank| **rank > 0).count(),
        }
    }
}

/// What will be collected.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Planned {
    /// Where it goes.
    pub output: PathBuf,
    /// Directions of a module.
    pub rank: usize,
    /// Modules that any adapter has.
    pub modules: usize,
    /// The adapters, in order.
    pub adapters: Vec<String>,
}

/// What was collected.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Where it is.
    pub output: PathBuf,
    /// Directions of a module.
    pub rank: usize,
    /// Groups of adapters that have directions of their own.
    pub clusters: usize,
    /// Modules that any adapter has.
    pub modules: usize,
    /// The dtype of what is stored.
    pub dtype: String,
    /// The adapters that were put in.
    pub adapters: Vec<Entry>,
    /// √ of the mean squared relative error.
    pub relative_error: f64,
    /// The same of the directions by themselves, before anything is rounded to the stored numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unrounded_error: Option<f64>,
    /// Passes over all adapters.
    pub passes: usize,
    /// Bytes of all files; of plain adapters with one A, that A counted once.
    pub bytes: u64,
    /// Bytes of the adapters' own tensors.
    pub bytes_before: u64,
}

/// What is in a collection.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Info {
    /// The collection.
    pub store: PathBuf,
    /// Directions of a module.
    pub rank: usize,
    /// Groups of adapters that have directions of their own.
    pub clusters: usize,
    /// The convention that its modules are named in.
    pub convention: String,
    /// Modules.
    pub modules: usize,
    /// The dtype of the directions.
    pub dtype: String,
    /// Bytes of what all share, and of what each adapter has by itself.
    pub bytes_shared: u64,
    /// See `bytes_shared`.
    pub bytes_adapters: u64,
    /// The adapters.
    pub adapters: Vec<Entry>,
}

/// √ of the mean of squares.
pub(super) fn mean(errors: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) =
        errors.fold((0.0, 0usize), |(sum, count), error| (sum + error * error, count + 1));
    if count > 0 { (sum / count as f64).sqrt() } else { 0.0 }
}
