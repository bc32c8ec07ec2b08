//! How numbers become codes again, whatever the encoding: the other direction of [`Decode`](super::Decode).

use std::ops::Range;

use super::rounding::Draws;
use super::{Stored, Writing};
use crate::error::Result;
use crate::format::Dtype;
use crate::math::kernel::loops::{Largest, fold_groups};

/// Writes rows of a weight as the stored tensors of its encoding.
pub trait Encode: std::fmt::Debug + Send + Sync {
    /// The tensors that are written, the codes first. A companion that is not among them keeps its bytes.
    fn parts(&self, writing: Writing) -> Vec<Part>;

    /// Rows that are encoded together: a panel begins at a multiple of it, and ends at one or at the last row.
    fn grain(&self) -> usize;

    /// Whether something of all rows must be known before the first is encoded.
    fn surveys(&self, _writing: Writing) -> bool {
        false
    }

    /// What must be known of a panel's values. The panels' are joined in the order of the rows.
    fn survey(&self, values: &[f32]) -> Vec<f32> {
        vec![largest(values)]
    }

    /// What encoding needs of the surveys of all panels.
    ///
    /// # Errors
    /// If what is stored beside the codes cannot be read.
    fn settle(&self, survey: &[f32]) -> Result<Vec<f32>> {
        Ok(vec![largest(survey)])
    }

    /// Encodes a panel.
    ///
    /// # Errors
    /// If reading scales that are kept fails; if a scale is not finite in its dtype.
    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()>;

    /// What no panel writes, once for a weight, from the settled survey of all rows.
    ///
    /// # Errors
    /// As [`Encode::rows`].
    fn rest(&self, _writing: Writing, _survey: &[f32], _out: &mut Encoded) -> Result<()> {
        Ok(())
    }
}

/// A tensor that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its (component-prefixed) name.
    pub name: String,
    /// Its dtype.
    pub dtype: Dtype,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
}

impl Part {
    /// One as it was stored.
    pub(super) fn like(stored: &Stored) -> Self {
        Self { name: stored.name.clone(), dtype: stored.dtype, shape: stored.shape.clone() }
    }

    /// Its bytes.
    pub fn bytes(&self) -> usize {
        super::stored::elements(&self.shape) * self.dtype.bitsize() / 8
    }
}

/// Some rows to encode.
#[derive(Debug)]
pub struct Panel<'a> {
    /// Which rows of the weight.
    pub rows: Range<usize>,
    /// Their values, row after row.
    pub values: &'a [f32],
    /// How they are written.
    pub writing: Writing,
    /// What is known of all rows, settled: empty, unless the encoding surveys them.
    pub survey: &'a [f32],
    draws: Draws,
}

impl<'a> Panel<'a> {
    /// Rows `rows` of the weight of this name, whose values these are.
    pub fn new(
        name: &str,
        rows: Range<usize>,
        values: &'a [f32],
        writing: Writing,
        survey: &'a [f32],
    ) -> Self {
        let columns = values.len() / rows.len().max(1);
        let draws = Draws::new(writing.rounding, name, rows.start * columns, values.len());
        Self { rows, values, writing, survey, draws }
    }

    /// The random number that an element is rounded by, if any is.
    #[inline(always)]
    pub(super) fn draw(&self, at: usize) -> Option<f32> {
        self.draws.get(at)
    }

    /// The random numbers of its elements.
    pub(super) fn draws(&self) -> &Draws {
        &self.draws
    }

    /// Whether scales are made anew.
    pub(super) fn fresh(&self) -> bool {
        self.writing.scales == super::Scales::Fresh
    }
}

/// Bytes at their places in the parts, and the numbers that they stand for.
#[derive(Debug, Default)]
pub struct Encoded {
    /// Pieces of the parts.
    pub pieces: Vec<Piece>,
    /// The panel as it will be read, row after row.
    pub values: Vec<f32>,
}

/// Some bytes of a part.
#[derive(Debug)]
pub struct Piece {
    /// Number of the part, as [`Encode::parts`] lists them.
    pub part: usize,
    /// Its first byte's place in it.
    pub at: usize,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Encoded {
    pub(super) fn put(&mut self, part: usize, at: usize, bytes: Vec<u8>) {
        self.pieces.push(Piece { part, at, bytes });
    }
}

/// The largest magnitude.
pub(super) fn largest(values: &[f32]) -> f32 {
    fold_groups::<Largest>(0.0, values, values.len()).first().copied().unwrap_or(0.0)
}
