//! Buffers of one worker, which every tensor uses again.

use std::ops::Range;

use super::direct;

/// Buffers that one thread uses again and again.
#[derive(Debug, Default)]
pub(in crate::ops::merge) struct Scratch {
    pub(super) bytes: Vec<u8>,
    /// The numbers of a panel that is encoded, and some of the base's.
    pub(super) values: Vec<f32>,
    pub(super) before: BaseRows,
    pub(super) product: Vec<f32>,
    pub(super) moves: direct::Scratch,
}

/// Some rows of the weight at work as the base has them.
#[derive(Debug, Default)]
pub(super) struct BaseRows {
    pub(super) rows: Range<usize>,
    pub(super) values: Vec<f32>,
}
