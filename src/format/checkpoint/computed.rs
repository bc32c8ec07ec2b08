//! A checkpoint of which some tensors are computed when they are asked for.

use super::{Checkpoint, ComputedTensors};
use crate::error::Result;
use crate::format::Header;
use crate::format::gguf::is_gguf;

impl Checkpoint {
    /// The same checkpoint with other headers, one a shard, and tensors that are computed.
    ///
    /// # Errors
    /// [`TensorTwice`](crate::ErrorKind::TensorTwice), if a name occurs twice.
    pub fn with_headers(mut self, headers: Vec<(Header, ComputedTensors)>) -> Result<Self> {
        for (shard, (header, computed)) in self.shards.iter_mut().zip(headers) {
            (shard.header, shard.computed) = (header, computed);
        }
        self.by_name.clear();
        let components: Vec<_> =
            self.components.iter().map(|c| (c.prefix.clone(), c.shards.clone())).collect();
        for (prefix, shards) in components {
            self.register(&prefix, shards)?;
        }
        Ok(self)
    }

    /// Whether any of its tensors is computed: then its files' headers are not its own.
    pub fn is_computed(&self) -> bool {
        self.shards.iter().any(|shard| !shard.computed.is_empty())
    }

    /// Whether its files are GGUF, whose headers and names no safetensors file has.
    pub fn is_gguf(&self) -> bool {
        self.shards.iter().any(|shard| is_gguf(&shard.source))
    }
}
