//! Scales of a matrix as a grid of blocks over it: one for all, one a row, one a group of columns, one a
//! block of rows and columns. A stack of matrices has one grid after the other.

use std::ops::Range;

use crate::error::Result;
use crate::math::kernel::loops::{Fold, Loop, fold_groups, widest};

use super::Stored;
use super::encode::Encoded;

/// ComfyUI's tiles of scales for cuBLAS: 128 rows by 4 columns, in the order of NVIDIA's kernels.
const TILE: (usize, usize) = (128, 4);

/// A grid of scales.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    scale: Stored,
    /// Rows and columns of a block.
    block: (usize, usize),
    /// Rows and columns of the grid of one matrix.
    size: (usize, usize),
    /// Rows of one matrix of a stack.
    rows: usize,
    tiled: bool,
}

/// The scales that some rows need.
#[derive(Debug, Clone)]
pub(super) struct Scales {
    values: Vec<f32>,
    first: usize,
}

impl Scales {
    /// The same places, each with what `to` makes of its number.
    pub(super) fn map(&self, to: impl Fn(f32) -> f32) -> Self {
        Self { values: self.values.iter().map(|value| to(*value)).collect(), first: self.first }
    }

    /// The same places, with what `to` makes of the numbers of both.
    pub(super) fn zip(&self, second: &Self, to: impl Fn(f32, f32) -> f32) -> Self {
        let pairs = self.values.iter().zip(&second.values);
        Self {
            values: pairs.map(|(first, second)| to(*first, *second)).collect(),
            first: self.first,
        }
    }

    /// Its numbers, row of blocks after row of blocks.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Its numbers, to be rounded.
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Number of the first row of blocks.
    pub(super) fn first(&self) -> usize {
        self.first
    }
}

impl Grid {
    /// One scale for all.
    pub(super) fn whole(scale: Stored, (rows, columns): (usize, usize)) -> Self {
        let block = (rows.max(1), columns.max(1));
        Self { scale, block, size: (1, 1), rows: rows.max(1), tiled: false }
    }

    /// One for every block of a matrix of this size (the last ones may be smaller), for `stack` matrices.
    /// `None`, if the scale has not just as many elements.
    pub(super) fn blocks(
        scale: Stored,
        stack: usize,
        (rows, columns): (usize, usize),
        block: (usize, usize),
    ) -> Option<Self> {
        let block = (block.0.max(1), block.1.max(1));
        let size = (rows.div_ceil(block.0), columns.div_ceil(block.1));
        let fits = scale.elements() == stack.checked_mul(size.0)?.checked_mul(size.1)?;
        let grid = Self { scale, block, size, rows: rows.max(1), tiled: false };
        fits.then_some(grid)
    }

    /// One for every group of columns of every row, in tiles; padded to whole ones.
    pub(super) fn tiles(
        scale: Stored,
        (rows, columns): (usize, usize),
        group: usize,
    ) -> Option<Self> {
        let size = (rows, columns.div_ceil(group));
        let padded = size.0.next_multiple_of(TILE.0) * size.1.next_multiple_of(TILE.1);
        let fits = scale.elements() == padded;
        let grid = Self { scale, block: (1, group), size, rows: rows.max(1), tiled: true };
        fits.then_some(grid)
    }

    /// The tensor of the scales.
    pub(super) fn stored(&self) -> &Stored {
        &self.scale
    }

    /// Whether there is one scale in all.
    pub(super) fn is_single(&self) -> bool {
        self.scale.elements() == 1
    }

    /// Rows whose scales no other rows share, from a multiple of it on.
    pub(super) fn grain(&self) -> usize {
        match self.block.0 {
            _ if self.is_single() => 1,
            high if self.rows.is_multiple_of(high)
                || self.scale.elements() == self.size.0 * self.size.1 =>
            {
                high
            }
            _ => self.rows,
        }
    }

    /// What the values of each block of some whole rows of blocks, and 0, fold to.
    pub(super) fn fold<F: Fold>(
        &self,
        rows: Range<usize>,
        columns: usize,
        values: &[f32],
    ) -> Scales {
        if rows.is_empty() {
            return Scales { values: Vec::new(), first: 0 };
        }
        let (first, end) = (self.row_of(rows.start), self.row_of(rows.end - 1) + 1);
        let mut found = vec![0.0; (end - first) * self.size.1];
        for (row, values) in rows.zip(values.chunks(columns.max(1))) {
            let at = (self.row_of(row) - first) * self.size.1;
            let folded = fold_groups::<F>(0.0, values, self.group());
            for (slot, value) in found.iter_mut().skip(at).zip(folded) {
                *slot = F::both(*slot, value);
            }
        }
        Scales { values: found, first }
    }

    /// The scales of some rows, a group of columns after the other.
    pub(super) fn of_rows(&self, rows: Range<usize>, scales: &Scales) -> Vec<f32> {
        rows.flat_map(|row| self.row(scales, row)).copied().collect()
    }

    /// As [`Grid::of_rows`], of two numbers for each.
    pub(super) fn pairs(
        &self,
        rows: Range<usize>,
        first: &Scales,
        second: &Scales,
    ) -> Vec<(f32, f32)> {
        let pairs = rows.flat_map(|row| self.row(first, row).iter().zip(self.row(second, row)));
        pairs.map(|(first, second)| (*first, *second)).collect()
    }

    /// Puts new scales into part `part`; they become what is stored of them.
    pub(super) fn put(&self, part: usize, scales: &mut Scales, out: &mut Encoded) -> Result<()> {
        let first = scales.first * self.size.1;
        let bytes = self.scale.rounded(first, &mut scales.values)?;
        out.put(part, first * self.scale.dtype.bitsize() / 8, bytes);
        Ok(())
    }

    /// Columns of a block.
    pub(super) fn group(&self) -> usize {
        self.block.1
    }

    /// Whether all has one scale.
    pub(super) fn is_whole(&self) -> bool {
        self.size == (1, 1)
    }

    /// Number of the grid's row that a row of the (stacked) matrix has.
    fn row_of(&self, row: usize) -> usize {
        row / self.rows * self.size.0 + row % self.rows / self.block.0
    }

    /// Reads what the rows need.
    pub(super) fn read(&self, rows: Range<usize>) -> Result<Scales> {
        if rows.is_empty() {
            return Ok(Scales { values: Vec::new(), first: 0 });
        }
        if self.tiled {
            return self.read_tiles(rows);
        }
        let (first, end) = (self.row_of(rows.start), self.row_of(rows.end - 1) + 1);
        let values = self.scale.scales(first * self.size.1..end * self.size.1)?;
        Ok(Scales { values, first })
    }

    fn read_tiles(&self, rows: Range<usize>) -> Result<Scales> {
        let across = self.size.1.div_ceil(TILE.1);
        let row_of_tiles = across * TILE.0 * TILE.1;
        let first_tile = rows.start / TILE.0;
        let tiles =
            first_tile * row_of_tiles..(rows.end - 1) / TILE.0 * row_of_tiles + row_of_tiles;
        let stored = self.scale.scales(tiles)?;
        let mut values = Vec::with_capacity(rows.len() * self.size.1);
        for row in rows.clone() {
            for column in 0..self.size.1 {
                let tile = (row / TILE.0 - first_tile) * across + column / TILE.1;
                let within = row % 32 * 16 + row % TILE.0 / 32 * 4 + column % TILE.1;
                let at = tile * TILE.0 * TILE.1 + within;
                values.push(stored.get(at).copied().unwrap_or(f32::NAN));
            }
        }
        Ok(Scales { values, first: rows.start })
    }

    /// The one scale of all, where there is one.
    pub(super) fn single(value: f32) -> Scales {
        Scales { values: vec![value], first: 0 }
    }

    /// The scales of one row, a group of columns after the other.
    pub(super) fn row<'a>(&self, scales: &'a Scales, row: usize) -> &'a [f32] {
        let at = (self.row_of(row) - scales.first) * self.size.1;
        scales.values.get(at..at + self.size.1).unwrap_or_default()
    }

    /// Multiplies every element of some whole rows with its scale.
    pub(super) fn multiply(
        &self,
        rows: Range<usize>,
        columns: usize,
        out: &mut [f32],
    ) -> Result<()> {
        let scales = self.read(rows.clone())?;
        let scales = self.of_rows(rows, &scales);
        widest(Multiplied {
            values: out,
            columns: columns.max(1),
            group: self.group(),
            scales: &scales,
        });
        Ok(())
    }
}

/// Values of whole rows, each times the scale of its group.
struct Multiplied<'a> {
    values: &'a mut [f32],
    columns: usize,
    group: usize,
    scales: &'a [f32],
}

impl Loop for Multiplied<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let across = self.columns.div_ceil(self.group);
        let rows = self.values.chunks_mut(self.columns).zip(self.scales.chunks(across));
        for (values, scales) in rows {
            for (group, scale) in values.chunks_mut(self.group).zip(scales) {
                for value in group {
                    *value *= scale;
                }
            }
        }
    }
}
