//! Which adapters hold the same factors and scales, bit for bit.
//!
//! What headers say decides for almost all of them. Those of which names, shapes and scales agree are told apart
//! by a few bytes of every tensor; only where these agree too is everything hashed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rayon::prelude::*;

use super::run::Found;
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

/// What tells whether an adapter is another one.
pub(super) struct Content {
    /// Names, dtypes and shapes of all tensors, and the scales of all modules.
    header: String,
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
    fn sampled(&self, access: Access) -> Result<String> {
        let step = self.places.len().div_ceil(SAMPLES).max(1);
        let some = self.places.iter().step_by(step);
        self.hash(some.map(|&(start, end)| (start, end.min(start + SAMPLE))), access)
    }

    fn whole(&self, access: Access) -> Result<String> {
        self.hash(self.places.iter().copied(), access)
    }

    fn hash(&self, places: impl Iterator<Item = (u64, u64)>, access: Access) -> Result<String> {
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

/// Says of every adapter that holds the same as one before it which that is.
pub(super) fn mark(found: &mut [Found], access: Access) -> Result<()> {
    let all = (0..found.len()).map(|at| (at, ()));
    let by_header = groups(found, all, |content, ()| Ok(content.header.clone()))?;
    let by_sample =
        groups(found, by_header, |content, header| Ok((header, content.sampled(access)?)))?;
    let by_all =
        groups(found, by_sample, |content, sampled| Ok((sampled, content.whole(access)?)))?;
    let mut first = BTreeMap::new();
    for (at, key) in by_all {
        let first = *first.entry(key).or_insert(at);
        let name = found.get(first).map(|found| found.row.name.clone());
        if let Some(found) = found.get_mut(at).filter(|_| first != at) {
            found.row.same_as = name;
        }
    }
    Ok(())
}

/// Those whose key another one has too, in their order.
fn groups<Before: Send, Key: Ord + Clone + Send>(
    found: &[Found],
    of: impl IntoIterator<Item = (usize, Before)>,
    key: impl Fn(&Content, Before) -> Result<Key> + Sync,
) -> Result<Vec<(usize, Key)>> {
    let contents: Vec<_> = of
        .into_iter()
        .filter_map(|(at, before)| Some((at, found.get(at)?.content.as_ref()?, before)))
        .collect();
    let keyed =
        contents.into_par_iter().map(|(at, content, before)| Ok((at, key(content, before)?)));
    let mut keyed: Vec<(usize, Key)> = keyed.collect::<Result<_>>()?;
    let mut counts = BTreeMap::new();
    for (_, key) in &keyed {
        *counts.entry(key.clone()).or_insert(0_usize) += 1;
    }
    keyed.retain(|(_, key)| counts.get(key).is_some_and(|count| *count > 1));
    Ok(keyed)
}
