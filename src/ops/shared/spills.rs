//! What each pair of adapters writes over each other, as reports have it.

use serde::Serialize;

use crate::math::linalg::spill::Spill;

/// One pair of adapters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairSpill {
    /// Number of the first adapter.
    pub a: usize,
    /// Number of the second.
    pub b: usize,
    /// What b writes where a writes, relative to a: 0 is nothing. None of an adapter that adds nothing.
    pub on_a: Option<f64>,
    /// What a writes where b writes, relative to b.
    pub on_b: Option<f64>,
}

impl PairSpill {
    /// All pairs of so many adapters, in order.
    pub(in crate::ops) fn of_all(spill: &Spill, adapters: usize) -> Vec<Self> {
        let pairs = (0..adapters).flat_map(|a| (a + 1..adapters).map(move |b| (a, b)));
        let of = |(a, b)| Self { a, b, on_a: spill.between(a, b), on_b: spill.between(b, a) };
        pairs.map(of).collect()
    }
}
