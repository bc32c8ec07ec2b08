//! Tensors held in memory in the place of a file's own: what other containers, and files in another
//! orientation, are turned into when they are opened.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Checkpoint, Layout, Shard};
use crate::error::{ErrorKind, Result};
use crate::format::access::Source;
use crate::format::header::lay_out;
use crate::format::{Header, Metadata, Tensor};

impl Checkpoint {
    /// A file of another container, its tensors held in memory. `source` is the file they were made of.
    ///
    /// # Errors
    /// [`ErrorKind::TensorTwice`], if a name occurs twice.
    pub fn held(
        path: &Path,
        source: Source,
        metadata: Option<Metadata>,
        tensors: Vec<Tensor>,
    ) -> Result<Self> {
        let mut bytes = Vec::with_capacity(tensors.iter().map(|tensor| tensor.3.len()).sum());
        let mut entries = Vec::with_capacity(tensors.len());
        for (name, dtype, shape, values) in tensors {
            bytes.extend_from_slice(&values);
            entries.push((name, dtype, shape));
        }
        let header = Header { metadata, tensors: lay_out(entries), ..Header::default() };
        let relative = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let shard = Shard::new(path, relative, header, source.holding(bytes));
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            layout: Layout::File,
            components: Vec::new(),
            shards: vec![shard],
            by_name: BTreeMap::new(),
        };
        checkpoint.register("", 0..1)?;
        Ok(checkpoint)
    }

    /// The same one file with other tensors, held in memory.
    ///
    /// # Errors
    /// As [`Checkpoint::held`]; [`ErrorKind::NotFound`], if there is no file.
    pub fn remade(self, tensors: Vec<Tensor>) -> Result<Self> {
        let shard = self.shards.into_iter().next().ok_or(ErrorKind::NotFound)?;
        Self::held(&shard.path, shard.source, shard.header.metadata, tensors)
    }
}
