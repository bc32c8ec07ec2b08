//! Rows of a tensor of which differences of checkpoints, or what a method combines, are all that is
//! added: kernels take them from stored bytes to stored bytes, a few rows at a time.

use super::elementwise::{Buffers, Deltas, Statistics, panel_rows};
use crate::error::Result;
use crate::format::TensorView;
use crate::math::kernel::stored_delta::{self, Move};
use crate::math::{DeltaStats, ElementType};
use crate::weight::difference::{self, Tuned};

/// A tensor that is only moved.
pub(in crate::ops::merge) struct Moves<'w, 'a> {
    pub(in crate::ops::merge) base: TensorView<'a>,
    /// Of the base, and of the result.
    pub(in crate::ops::merge) types: (ElementType, ElementType),
    pub(in crate::ops::merge) columns: usize,
    /// What a method combines, or else the differences.
    pub(in crate::ops::merge) method: Option<&'w (Statistics<'a>, Deltas<'a>)>,
    pub(in crate::ops::merge) differences: &'w [Tuned<'a>],
}

/// Buffers that one thread uses again and again.
#[derive(Debug, Default)]
pub(in crate::ops::merge) struct Scratch {
    base: Vec<u8>,
    tuned: Vec<u8>,
    values: Vec<f64>,
    pub(in crate::ops::merge) blend: Buffers,
}

impl Moves<'_, '_> {
    /// Computes rows `first..`, as many as `out` holds. Nothing, if a type is not the kernels', or a
    /// value went wrong: the stages find which, and say so.
    pub(in crate::ops::merge) fn compute(
        &self,
        first: usize,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<Option<DeltaStats>> {
        if !stored_delta::takes(self.types.0) || !stored_delta::takes(self.types.1) {
            return Ok(None);
        }
        let rows = panel_rows(self.columns);
        let row_bytes = (self.columns * self.types.1.size()).max(1);
        let mut stats = DeltaStats::default();
        for (at, out) in out.chunks_mut(rows * row_bytes).enumerate() {
            match self.panel(first + at * rows, out.len() / row_bytes, out, scratch)? {
                Some(found) => stats.add(&found),
                None => return Ok(None),
            }
        }
        Ok(Some(stats))
    }

    fn panel(
        &self,
        first: usize,
        rows: usize,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<Option<DeltaStats>> {
        let (at, count) = (first * self.columns, rows * self.columns);
        let Scratch { base, tuned, values, blend } = scratch;
        let base = difference::stored(self.base, self.types.0, at, count, base)?;
        let combined = match self.method {
            Some((statistics, deltas)) => statistics.combined(deltas, first, rows, blend)?,
            None => None,
        };
        let found = if let Some(combined) = combined {
            stored_delta::round(self.types, base, Move::By(combined), out)
        } else {
            values.resize(count, 0.0);
            self.types.0.decode(base, values);
            let stored = (base, self.types.0);
            if let Some((statistics, deltas)) = self.method {
                statistics.add_to(deltas, values, first, blend)?;
            } else if !difference::add_stored(self.differences, stored, values, at, tuned)? {
                return Ok(None);
            }
            stored_delta::round(self.types, base, Move::To(values), out)
        };
        Ok((!found.non_finite).then_some(found.stats))
    }
}
