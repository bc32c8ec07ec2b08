//! Which adapters hold the same factors and scales, bit for bit.
//!
//! What headers say decides for almost all of them. Those of which names, shapes and scales agree are told apart
//! by a few bytes of every tensor; only where these agree too is everything hashed.

use std::path::PathBuf;

use crate::adapter::Adapter;
use crate::error::{Locate, Result};
use crate::format::hash::Hasher;
use crate::format::{Access, Source};

/// Tensors of which bytes are looked at before all are.
const SAMPLES: usize = 16;
/// Bytes of each of them.
const SAMPLE: u64 = 64;
/// Bytes read at a time.
const PIECE: u64 = 4 << 20;

/// A hash in hexadecimal.
pub(super) type Digested = String;

/// What tells whether an adapter is another one.
pub(super) struct Content {
    /// Names, dtypes and shapes of all tensors, and the scales of all modules.
    pub(super) header: Digested,
    path: PathBuf,
    /// Where the tensors' bytes are, by the tensors' names.
    places: Vec<(u64, u64)>,
}

impl Content {
    /// Of an open adapter; none, if its tensors are not all stored in one file.
    pub(super) fn of(adapter: &Adapter) -> Option<Self> {
        let [shard] = adapter.file.shards.as_slice() else { return None };
        if !shard.computed.is_empty() || !shard.source.is_of_file() {
            return None;
        }
        let mut hash = Hasher::default();
        let mut places = Vec::with_capacity(adapter.file.len());
        for name in adapter.file.names() {
            let spec = adapter.file.tensor(name)?.spec;
            hash.update(format!("{name}\0{}{:?}\0", spec.dtype, spec.shape));
            let start = shard.header.data_start + spec.start;
            places.push((start, start + spec.bytes()));
        }
        for module in &adapter.modules {
            hash.update(format!("{}\0", module.name));
            hash.update(module.scale.value.to_le_bytes());
        }
        Some(Self { header: hash.finish(), path: shard.path.clone(), places })
    }

    /// A hash of the first bytes of some tensors.
    pub(super) fn sampled(&self, access: Access) -> Result<Digested> {
        let step = self.places.len().div_ceil(SAMPLES).max(1);
        let some = self.places.iter().step_by(step);
        self.hash(some.map(|&(start, end)| (start, end.min(start + SAMPLE))), access)
    }

    pub(super) fn whole(&self, access: Access) -> Result<Digested> {
        self.hash(self.places.iter().copied(), access)
    }

    fn hash(&self, places: impl Iterator<Item = (u64, u64)>, access: Access) -> Result<Digested> {
        let source = Source::open(&self.path, access).in_file(&self.path)?;
        let (mut hash, mut scratch) = (Hasher::default(), Vec::new());
        for (start, end) in places {
            let mut at = start;
            while at < end {
                let next = end.min(at + PIECE);
                hash.update(source.bytes(at..next, &mut scratch).in_file(&self.path)?);
                at = next;
            }
        }
        Ok(hash.finish())
    }
}
