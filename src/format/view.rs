//! A tensor's bytes, wherever they are stored.

use std::ops::Range;

use super::header::TensorSpec;
use super::shard::{Shard, shrunk};
use crate::error::{Locate, Result};

/// Bytes compared at a time.
const CHUNK: u64 = 4 << 20;

/// A tensor and the shard its bytes are in.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Name, type, shape, offsets.
    pub spec: &'a TensorSpec,
    /// Where it lives.
    pub shard: &'a Shard,
}

impl<'a> TensorView<'a> {
    /// The bytes of `range`, counted from the tensor's first byte.
    ///
    /// # Errors
    /// If reading fails or the range leaves the tensor.
    pub fn bytes<'b>(&self, range: Range<u64>, scratch: &'b mut Vec<u8>) -> Result<&'b [u8]>
    where
        'a: 'b,
    {
        if let Some(computed) = self.shard.computed.get(&self.spec.name) {
            computed.bytes(range.start..range.end.min(self.spec.bytes()), scratch)?;
            return Ok(scratch);
        }
        let begin = self.shard.header.data_start + self.spec.start;
        let within = begin + range.start..begin + range.end.min(self.spec.bytes());
        self.shard.source.bytes(within, scratch).map_err(shrunk).in_file(&self.shard.path)
    }

    /// Whether its bytes are computed when they are asked for.
    pub fn is_computed(&self) -> bool {
        self.shard.computed.contains_key(&self.spec.name)
    }

    /// Rows (of the last dimension's length) that are computed together; 1 for what is stored.
    pub fn grain(&self) -> usize {
        self.shard.computed.get(&self.spec.name).map_or(1, |computed| computed.grain().max(1))
    }

    /// Whether all of it has to be looked at before any is computed.
    pub fn prepares(&self) -> bool {
        self.shard.computed.get(&self.spec.name).is_some_and(|computed| computed.prepares())
    }

    /// Looks at all of what is computed, on the current pool's threads.
    ///
    /// # Errors
    /// If what it is made of cannot be read, or is not what it should be.
    pub fn prepare(&self) -> Result<()> {
        self.shard.computed.get(&self.spec.name).map_or(Ok(()), |computed| computed.prepare())
    }

    /// All bytes of the tensor.
    ///
    /// # Errors
    /// If reading fails.
    pub fn all<'b>(&self, scratch: &'b mut Vec<u8>) -> Result<&'b [u8]>
    where
        'a: 'b,
    {
        self.bytes(0..self.spec.bytes(), scratch)
    }

    /// Whether two tensors hold the same bytes, of one dtype and shape.
    ///
    /// # Errors
    /// If reading fails.
    pub fn same_bytes(&self, other: TensorView<'_>) -> Result<bool> {
        if self.spec.dtype != other.spec.dtype || self.spec.shape != other.spec.shape {
            return Ok(false);
        }
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < self.spec.bytes() {
            let end = (at + CHUNK).min(self.spec.bytes());
            if self.bytes(at..end, &mut left)? != other.bytes(at..end, &mut right)? {
                return Ok(false);
            }
            at = end;
        }
        Ok(true)
    }
}
