//! Updates that need whole rows in sight (DoRA, replaced values, f64): a panel held in f64.
//!
//! Slower than the fused kernel and used only where the formula asks for it.

use super::factor::{PackedLeft, PackedRight};
use super::fused;

/// A few rows of a weight, in f64.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// rows × columns values, row by row.
    pub values: Vec<f64>,
}

impl Panel {
    /// Adds coefficient · left · right to as many rows as that has, from row `at` on.
    ///
    /// # Panics
    /// If the product has other columns or leaves the panel.
    #[track_caller]
    pub fn add_product(
        &mut self,
        at: usize,
        left: &PackedLeft,
        right: &PackedRight,
        coefficient: f64,
        scratch: &mut Vec<f32>,
    ) {
        assert_eq!(right.columns(), self.columns, "columns of an update");
        scratch.resize(left.rows() * self.columns, 0.0);
        fused::product(scratch, left, right);
        let values = &mut self.values[at * self.columns..][..left.rows() * self.columns];
        for (value, delta) in values.iter_mut().zip(scratch.iter()) {
            *value += coefficient * f64::from(*delta);
        }
    }

    /// Moves every value towards `other`: v + share · (other − v); exactly `other` at share 1.
    ///
    /// # Panics
    /// If `other` has another length.
    #[track_caller]
    pub fn move_towards(&mut self, other: &[f64], share: f64) {
        assert_eq!(other.len(), self.values.len(), "values to move to");
        blend(&mut self.values, other, share);
    }

    /// Adds the squares of each row to `sums` (one per row).
    pub fn row_squares(&self) -> Vec<f64> {
        self.values
            .chunks(self.columns.max(1))
            .map(|row| row.iter().map(|value| value * value).sum())
            .collect()
    }

    /// Adds the squares of each column to `sums` (one per column), rows in order.
    ///
    /// # Panics
    /// If `sums` has another length.
    #[track_caller]
    pub fn add_column_squares(&self, sums: &mut [f64]) {
        assert_eq!(sums.len(), self.columns, "sums per column");
        for row in self.values.chunks(self.columns.max(1)) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value * value;
            }
        }
    }

    /// Multiplies each row by its factor.
    pub fn scale_rows(&mut self, factors: &[f64]) {
        for (row, factor) in self.values.chunks_mut(self.columns.max(1)).zip(factors) {
            for value in row {
                *value *= factor;
            }
        }
    }

    /// Multiplies each column by its factor.
    pub fn scale_columns(&mut self, factors: &[f64]) {
        for row in self.values.chunks_mut(self.columns.max(1)) {
            for (value, factor) in row.iter_mut().zip(factors) {
                *value *= factor;
            }
        }
    }
}

/// v + share · (other − v) for each; exactly `other` at share 1.
pub fn blend(values: &mut [f64], other: &[f64], share: f64) {
    // A share of exactly 1 means replacement, bit for bit.
    if share == 1.0 {
        values.copy_from_slice(other);
        return;
    }
    for (value, target) in values.iter_mut().zip(other) {
        *value += share * (target - *value);
    }
}

/// magnitude / (√squares + ε) for each row or column: DoRA's factors (Liu et al. 2024,
/// <https://arxiv.org/abs/2402.09353>, eq. 5); 0 where the norm is 0, since the row is 0 too.
pub fn magnitude_factors(magnitude: &[f64], squares: &[f64], epsilon: f64) -> Vec<f64> {
    let factor = |(magnitude, squares): (&f64, &f64)| {
        if *squares > 0.0 { magnitude / (squares.sqrt() + epsilon) } else { 0.0 }
    };
    magnitude.iter().zip(squares).map(factor).collect()
}
