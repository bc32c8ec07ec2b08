//! What is noted of a finished shard, so that it need not be made again: the hash of its bytes, and what rounding did
//! to its tensors.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::jobs::Stats;
use crate::error::Result;
use crate::format::hash;
use crate::math::DeltaStats;
use crate::ops::merge::plan::layout::OutputShard;

/// What is noted of a finished shard.
#[derive(Serialize, Deserialize)]
pub(in crate::ops) struct Note {
    shard: String,
    sha256: String,
    stats: Vec<TensorNote>,
}

/// A tensor's statistics; sums as their bits, since a decimal need not come back the same.
#[derive(Serialize, Deserialize)]
struct TensorNote {
    name: String,
    sums: [u64; 3],
    counts: [u64; 3],
}

impl Note {
    /// The note of a shard that is whole, and lies at `path`.
    ///
    /// # Errors
    /// If it cannot be read back.
    pub(in crate::ops) fn of(path: &Path, shard: &OutputShard, stats: &Stats) -> Result<Self> {
        let stats = stats.iter().map(|(name, stats)| TensorNote {
            name: name.clone(),
            sums: [stats.asked, stats.added, stats.dot].map(f64::to_bits),
            counts: [stats.touched, stats.lost, stats.elements],
        });
        let (relative, sha256) = (shard.relative.clone(), hash::of_file(path)?);
        Ok(Self { shard: relative, sha256, stats: stats.collect() })
    }

    /// A note as it was written; none if it was cut short.
    pub(in crate::ops) fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// As it is written.
    ///
    /// # Errors
    /// If JSON cannot be made of it.
    pub(in crate::ops) fn text(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(self).map_err(std::io::Error::other)?)
    }

    /// The statistics of a shard, if what lies at `path` is just as it was finished.
    pub(in crate::ops) fn stats(self, path: &Path, shard: &OutputShard) -> Option<Stats> {
        // A link would go out as one.
        let whole = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        if !whole || self.shard != shard.relative || hash::of_file(path).ok()? != self.sha256 {
            return None;
        }
        let stats = self.stats.into_iter().map(|TensorNote { name, sums, counts }| {
            let [asked, added, dot] = sums.map(f64::from_bits);
            let [touched, lost, elements] = counts;
            (name, DeltaStats { asked, added, dot, touched, lost, elements })
        });
        Some(stats.collect())
    }
}

/// The name of a shard's note.
pub(in crate::ops) fn name(number: usize) -> String {
    format!("shard-{number:05}.json")
}
