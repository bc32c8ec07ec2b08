//! The factors of a module's update.

use std::ops::Range;

use crate::math::{LowRank, Matrix};

/// The factors of one module's update: Δ = scale · B · A, in f64, row after row.
///
/// The scale stands apart, as adapters store it, until [`Factors::folded`] multiplies it into B.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Factors {
    /// B, `out_features` × `rank`, row-major.
    pub b: Vec<f64>,
    /// A, `rank` × `in_features`, row-major.
    pub a: Vec<f64>,
    /// What B · A is multiplied by.
    pub scale: f64,
    /// Rows of B.
    pub out_features: usize,
    /// Columns of B, and rows of A.
    pub rank: usize,
    /// Columns of A; of a convolution, channels × kernel.
    pub in_features: usize,
}

impl Factors {
    pub(super) fn of(matrix: &LowRank, scale: f64) -> Self {
        // A matrix is stored by columns, so its transpose's values are its own by rows.
        let by_rows = |matrix: &Matrix| matrix.transpose().as_slice().to_vec();
        Self {
            b: by_rows(&matrix.up),
            a: by_rows(&matrix.down),
            scale,
            out_features: matrix.rows(),
            rank: matrix.rank(),
            in_features: matrix.columns(),
        }
    }

    /// The same update with the scale multiplied into B, and a scale of 1.
    #[must_use]
    pub fn folded(mut self) -> Self {
        for value in &mut self.b {
            *value *= self.scale;
        }
        self.scale = 1.0;
        self
    }

    /// Rows of scale · B · A, row after row: `rows.len()` × `in_features` values. Rows that the update has not
    /// are left out.
    pub fn delta_rows(&self, rows: Range<usize>) -> Vec<f64> {
        let rows = rows.start..rows.end.min(self.out_features);
        let mut delta = vec![0.0; rows.len() * self.in_features];
        let b = self.b.chunks(self.rank.max(1)).skip(rows.start);
        for (b, delta) in b.zip(delta.chunks_mut(self.in_features.max(1))) {
            for (factor, a) in b.iter().zip(self.a.chunks(self.in_features.max(1))) {
                for (value, a) in delta.iter_mut().zip(a) {
                    *value += factor * a;
                }
            }
            for value in delta {
                *value *= self.scale;
            }
        }
        delta
    }
}
