//! What the shards of a plan are made from: the inputs, open.

use crate::adapter::Adapter;
use crate::error::Result;
use crate::format::{Checkpoint, access};

/// The open files that the shards of a plan are made from.
#[derive(Debug)]
pub struct OpenInputs {
    /// The base, its quantised weights decoded where the plan changes any of them.
    pub(in crate::ops) base: Checkpoint,
    /// The adapters, as terms number them.
    pub(in crate::ops) adapters: Vec<Adapter>,
    /// The fine-tuned checkpoints, as differences number them.
    pub(in crate::ops) tuned: Vec<Checkpoint>,
}

impl OpenInputs {
    /// Fails if a weight file was written to since it was opened.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`](crate::error::ErrorKind::Changed), and whatever the operating system says of asking.
    pub(in crate::ops) fn check_unchanged(&self) -> Result<()> {
        let adapters = self.adapters.iter().map(|adapter| &adapter.file);
        let mut files = std::iter::once(&self.base).chain(adapters).chain(&self.tuned);
        files.try_for_each(Checkpoint::check_unchanged)
    }

    /// All weight files that are read.
    pub(in crate::ops) fn sources(&self) -> impl Iterator<Item = &access::Source> {
        let adapters = self.adapters.iter().map(|adapter| &adapter.file);
        let files = std::iter::once(&self.base).chain(adapters).chain(&self.tuned);
        files.flat_map(|file| &file.shards).map(|shard| &shard.source)
    }
}
