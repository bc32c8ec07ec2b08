//! Householder QR of tall matrices in f64, blocked (Schreiber and Van Loan 1989, the compact WY form).
//!
//! Stable whatever the rank: duplicated and vanishing columns come out as they should, which
//! Cholesky-QR and f32 do not manage. Q is never formed; it is applied.

use super::matrix::{Matrix, largest, product, subtract_product, transposed_part_product};
use crate::math::kernel::lanes::{Lanes, Task};
use crate::math::kernel::vectors::dispatch;

/// Columns that are factored together.
const BLOCK: usize = 16;

/// Q and R of an m × n matrix: the reflectors, and min(m, n) × n R.
#[derive(Debug, Clone)]
pub struct Qr {
    rows: usize,
    blocks: Vec<Block>,
    r: Matrix,
}

/// Reflectors `first..first + n` as I − V·T·Vᵀ, V unit lower trapezoidal from row `first` on.
#[derive(Debug, Clone)]
struct Block {
    first: usize,
    v: Matrix,
    t: Matrix,
}

impl Qr {
    /// Factors `a`; O(m·n²).
    pub fn new(mut a: Matrix) -> Self {
        let (rows, columns) = a.shape();
        let count = rows.min(columns);
        let mut blocks = Vec::with_capacity(count.div_ceil(BLOCK));
        for first in (0..count).step_by(BLOCK) {
            let width = BLOCK.min(count - first);
            let mut panel = a.view((first, first), (rows - first, width)).clone_owned();
            let scales = dispatch(FactorPanel { panel: &mut panel });
            a.view_mut((first, first), (width, width)).copy_from(&panel.rows(0, width));
            let block = Block::new(first, panel, &scales);
            if first + width < columns {
                block.apply_transposed(&mut a, first + width);
            }
            blocks.push(block);
        }
        let mut r = a.rows(0, count).clone_owned();
        r.fill_lower_triangle(0.0, 1);
        Self { rows, blocks, r }
    }

    /// R, min(m, n) × n, upper triangular (trapezoidal if m < n).
    pub fn r(&self) -> &Matrix {
        &self.r
    }

    /// Q · c for c: min(m, n) × k; m × k.
    ///
    /// # Panics
    /// If `c` has another number of rows.
    #[track_caller]
    pub fn apply(&self, c: &Matrix) -> Matrix {
        assert_eq!(c.nrows(), self.r.nrows(), "rows of what Q is applied to");
        let mut result = Matrix::zeros(self.rows, c.ncols());
        result.rows_mut(0, c.nrows()).copy_from(c);
        for block in self.blocks.iter().rev() {
            block.apply(&mut result);
        }
        result
    }
}

impl Block {
    /// Takes the reflectors out of a factored panel and builds T (LAPACK `dlarft`, forward).
    fn new(first: usize, mut v: Matrix, scales: &[f64]) -> Self {
        let width = v.ncols();
        for column in 0..width {
            for row in 0..column {
                v[(row, column)] = 0.0;
            }
            v[(column, column)] = 1.0;
        }
        let gram = transposed_part_product(&v, &v, (0, 0));
        let mut t = Matrix::zeros(width, width);
        for column in 0..width {
            let scale = scales[column];
            for row in 0..column {
                let sum: f64 = (row..column).map(|k| t[(row, k)] * gram[(k, column)]).sum();
                t[(row, column)] = -scale * sum;
            }
            t[(column, column)] = scale;
        }
        Self { first, v, t }
    }

    /// c ← (I − V·T·Vᵀ) · c.
    fn apply(&self, c: &mut Matrix) {
        let inner = transposed_part_product(&self.v, c, (self.first, 0));
        subtract_product(c, (self.first, 0), &self.v, &product(&self.t, &inner));
    }

    /// c ← (I − V·Tᵀ·Vᵀ) · c, on the columns from `from` on.
    fn apply_transposed(&self, c: &mut Matrix, from: usize) {
        let inner = transposed_part_product(&self.v, c, (self.first, from));
        let inner = product(&self.t.transpose(), &inner);
        subtract_product(c, (self.first, from), &self.v, &inner);
    }
}

/// Unblocked Householder QR of one panel, in place; gives the reflectors' scales τ.
struct FactorPanel<'a> {
    panel: &'a mut Matrix,
}

impl Task for FactorPanel<'_> {
    type Output = Vec<f64>;

    // The vectors are the compiler's: this function is compiled for the machine's instructions.
    #[inline(always)]
    fn run<V: Lanes>(self) -> Vec<f64> {
        let (rows, columns) = self.panel.shape();
        let values = self.panel.as_mut_slice();
        let mut scales = vec![0.0; columns];
        for column in 0..columns {
            let (done, rest) = values.split_at_mut((column + 1) * rows);
            let pivot = &mut done[column * rows + column..];
            scales[column] = reflect(pivot);
            if scales[column] == 0.0 {
                continue;
            }
            for other in rest.chunks_exact_mut(rows) {
                let other = &mut other[column..];
                let along = scales[column] * (other[0] + dot(&pivot[1..], &other[1..]));
                other[0] -= along;
                for (value, direction) in other[1..].iter_mut().zip(&pivot[1..]) {
                    *value -= along * direction;
                }
            }
        }
        scales
    }
}

/// Turns a column into (norm, reflector without its leading 1); gives τ (LAPACK `dlarfg`).
#[inline(always)]
fn reflect(column: &mut [f64]) -> f64 {
    let largest = largest(column);
    let head = column[0];
    if largest == 0.0 || column[1..].iter().all(|value| *value == 0.0) {
        return 0.0;
    }
    // Squares of entries near 1 neither overflow nor vanish.
    let scale = 1.0 / largest;
    let squares = sum_of(column, column, |a, b| (a * scale) * (b * scale));
    let norm = -(squares.sqrt() * largest).copysign(head);
    let divisor = 1.0 / (head - norm);
    for value in &mut column[1..] {
        *value *= divisor;
    }
    column[0] = norm;
    (norm - head) / norm
}

/// Σ aᵢ·bᵢ.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum_of(a, b, |a, b| a * b)
}

/// Σ of what is made of pairs, in eight lanes, so that it can be done in vectors, in the same order everywhere.
#[inline(always)]
fn sum_of(a: &[f64], b: &[f64], of: impl Fn(f64, f64) -> f64) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0f64; LANES];
    let ((a_parts, a_rest), (b_parts, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_parts.iter().zip(b_parts) {
        for lane in 0..LANES {
            sums[lane] += of(a[lane], b[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| of(*a, *b)).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::linalg::matrix::transposed_product;

    fn check(a: &Matrix) {
        let qr = Qr::new(a.clone());
        let least = a.nrows().min(a.ncols());
        let q = qr.apply(&Matrix::identity(least, least));
        let size = a.iter().fold(1e-300f64, |m, v| m.max(v.abs())) * a.ncols() as f64;
        assert!((product(&q, qr.r()) - a).amax() <= 1e-14 * size, "{}", a.nrows());
        let gram = transposed_product(&q, &q) - Matrix::identity(least, least);
        assert!(gram.amax() < 1e-13);
    }

    #[test]
    fn awkward_shapes_and_ranks() {
        let mut seed = 1u64;
        let mut random = |rows, columns| {
            Matrix::from_fn(rows, columns, |_, _| {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as f64 / f64::from(1u32 << 30) - 1.0
            })
        };
        for (rows, columns) in
            [(1, 1), (5, 1), (1, 5), (3, 7), (40, 33), (33, 40), (200, 64), (130, 100)]
        {
            check(&random(rows, columns));
        }
        let a = random(90, 20);
        let mut twice = Matrix::zeros(90, 40);
        twice.columns_mut(0, 20).copy_from(&a);
        twice.columns_mut(20, 20).copy_from(&a);
        check(&twice);
        check(&Matrix::zeros(10, 4));
        check(&(random(50, 10) * 1e-160));
        check(&(random(50, 10) * 1e160));
    }
}
