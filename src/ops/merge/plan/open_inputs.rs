//! What the shards of a plan are made from: the inputs, open.

use std::sync::Arc;

use super::tensor_plan::{OutputTensor, TensorPlan};
use crate::adapter::Adapter;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Checkpoint, TensorView, access};
use crate::weight::{Trained, Weight, Weights, Writing};

/// The open files that the shards of a plan are made from.
#[derive(Debug)]
pub struct OpenInputs {
    /// The base, its quantised weights decoded where the plan changes any of them.
    pub(in crate::ops) base: Checkpoint,
    /// The adapters, as terms number them.
    pub(in crate::ops) adapters: Vec<Adapter>,
    /// The fine-tuned checkpoints, as differences number them.
    pub(in crate::ops) tuned: Vec<Checkpoint>,
    /// Where weights of the base keep their codes or are quantised again: the base as it is stored.
    pub(in crate::ops) quantised: Option<Quantised>,
    /// Where the base has the names and files of a quantised sibling: the checkpoint that its values are in.
    pub(in crate::ops) values: Option<Checkpoint>,
    /// What of the base is read as it was trained on.
    pub(in crate::ops) trained: Option<Trained>,
    /// Where the base's numbers are, if it has the names of another checkpoint than it is stored in.
    pub(in crate::ops) recast: Option<Arc<Checkpoint>>,
}

/// A quantised base as it is stored.
#[derive(Debug)]
pub(in crate::ops) struct Quantised {
    /// Its tensors.
    pub(in crate::ops) stored: Checkpoint,
    /// What they are parts of.
    pub(in crate::ops) weights: Weights,
    /// How weights are written again.
    pub(in crate::ops) writing: Writing,
}

impl OpenInputs {
    /// The base's files: those that it is described by, and those with its numbers if they are others.
    pub(in crate::ops) fn bases(&self) -> impl Iterator<Item = &Checkpoint> {
        std::iter::once(&self.base).chain(self.recast.as_deref()).chain(&self.values)
    }

    /// The base tensor that one of the result is made of: as it is stored, if its bytes are copied.
    ///
    /// # Errors
    /// If there is none.
    pub(in crate::ops) fn source(&self, tensor: &OutputTensor) -> Result<TensorView<'_>> {
        let stored = self.quantised.as_ref().map(|quantised| &quantised.stored);
        let copied = matches!(tensor.plan, TensorPlan::Copy);
        let base = stored.filter(|_| copied).unwrap_or(&self.base);
        base.tensor(&tensor.base).ok_or(ErrorKind::NotFound).in_tensor(&tensor.base)
    }

    /// A weight that is quantised again, and how.
    ///
    /// # Errors
    /// If it is not there.
    pub(in crate::ops) fn weight(&self, name: &str) -> Result<(&Weight, Writing)> {
        let found = self
            .quantised
            .as_ref()
            .and_then(|quantised| Some((quantised.weights.get(name)?, quantised.writing)));
        found.ok_or(ErrorKind::NotFound).in_tensor(name)
    }

    /// All checkpoints of models that are read.
    pub(in crate::ops) fn models(&self) -> impl Iterator<Item = &Checkpoint> {
        self.bases().chain(&self.tuned)
    }

    /// Fails if a weight file was written to since it was opened.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`](crate::error::ErrorKind::Changed), and whatever the operating system says of asking.
    pub(in crate::ops) fn check_unchanged(&self) -> Result<()> {
        let adapters = self.adapters.iter().map(|adapter| &adapter.file);
        let mut files = self.models().chain(adapters);
        files.try_for_each(Checkpoint::check_unchanged)
    }

    /// All weight files that are read.
    pub(in crate::ops) fn sources(&self) -> impl Iterator<Item = &access::Source> {
        let adapters = self.adapters.iter().map(|adapter| &adapter.file);
        let files = self.models().chain(adapters);
        files.flat_map(|file| &file.shards).map(|shard| &shard.source)
    }
}
