//! What a note says of a finished shard: what rounding did to its tensors.

use serde::{Deserialize, Serialize};

use super::jobs::Stats;
use crate::math::DeltaStats;
use crate::ops::job::note::Note;

/// A tensor's statistics; sums as their bits, since not every sum is a decimal.
#[derive(Serialize, Deserialize)]
pub(in crate::ops::merge) struct TensorNote {
    name: String,
    sums: [u64; 3],
    counts: [u64; 3],
}

/// The statistics as a note has them.
pub(in crate::ops::merge) fn said(stats: &Stats) -> Vec<TensorNote> {
    let stats = stats.iter().map(|(name, stats)| TensorNote {
        name: name.clone(),
        sums: [stats.asked, stats.added, stats.dot].map(f64::to_bits),
        counts: [stats.touched, stats.lost, stats.elements],
    });
    stats.collect()
}

/// The statistics that a note has, if it is a shard's.
pub(in crate::ops::merge) fn stats(note: &Note) -> Option<Stats> {
    let said: Vec<TensorNote> = note.said()?;
    let stats = said.into_iter().map(|TensorNote { name, sums, counts }| {
        let [asked, added, dot] = sums.map(f64::from_bits);
        let [touched, lost, elements] = counts;
        (name, DeltaStats { asked, added, dot, touched, lost, elements })
    });
    Some(stats.collect())
}
