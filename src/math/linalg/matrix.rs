//! Dense f64 matrices and their products.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// A dense matrix of f64, column by column.
pub type Matrix = nalgebra::DMatrix<f64>;

fn view(matrix: &Matrix) -> MatRef<'_, f64> {
    MatRef::from_column_major_slice(matrix.as_slice(), matrix.nrows(), matrix.ncols())
}

fn view_mut(matrix: &mut Matrix) -> MatMut<'_, f64> {
    let (rows, columns) = matrix.shape();
    MatMut::from_column_major_slice_mut(matrix.as_mut_slice(), rows, columns)
}

/// a · b; a: m × k, b: k × n.
///
/// # Panics
/// If the inner dimensions differ.
#[track_caller]
pub fn product(a: &Matrix, b: &Matrix) -> Matrix {
    assert_eq!(a.ncols(), b.nrows(), "inner dimensions of a product");
    let mut result = Matrix::zeros(a.nrows(), b.ncols());
    matmul(view_mut(&mut result), Accum::Replace, view(a), view(b), 1.0, Par::Seq);
    result
}

/// aᵀ · b; a: k × m, b: k × n.
///
/// # Panics
/// If the inner dimensions differ.
#[track_caller]
pub fn transposed_product(a: &Matrix, b: &Matrix) -> Matrix {
    assert_eq!(a.nrows(), b.nrows(), "inner dimensions of a product");
    let mut result = Matrix::zeros(a.ncols(), b.ncols());
    matmul(view_mut(&mut result), Accum::Replace, view(a).transpose(), view(b), 1.0, Par::Seq);
    result
}

/// a · bᵀ; a: m × k, b: n × k.
///
/// # Panics
/// If the inner dimensions differ.
#[track_caller]
pub fn product_transposed(a: &Matrix, b: &Matrix) -> Matrix {
    assert_eq!(a.ncols(), b.ncols(), "inner dimensions of a product");
    let mut result = Matrix::zeros(a.nrows(), b.nrows());
    matmul(view_mut(&mut result), Accum::Replace, view(a), view(b).transpose(), 1.0, Par::Seq);
    result
}

/// target += a · b.
pub(super) fn add_product(target: &mut Matrix, a: &Matrix, b: &Matrix) {
    matmul(view_mut(target), Accum::Add, view(a), view(b), 1.0, Par::Seq);
}

/// target += aᵀ · b.
pub(super) fn add_transposed_product(target: &mut Matrix, a: &Matrix, b: &Matrix) {
    matmul(view_mut(target), Accum::Add, view(a).transpose(), view(b), 1.0, Par::Seq);
}

/// target −= a · b on the rows of `target` from `first` on, columns `from..`.
pub(super) fn subtract_product(
    target: &mut Matrix,
    (first, from): (usize, usize),
    a: &Matrix,
    b: &Matrix,
) {
    let part = view_mut(target).submatrix_mut(first, from, a.nrows(), b.ncols());
    matmul(part, Accum::Add, view(a), view(b), -1.0, Par::Seq);
}

/// aᵀ · (the rows of `b` from `first` on, columns `from..`).
pub(super) fn transposed_part_product(
    a: &Matrix,
    b: &Matrix,
    (first, from): (usize, usize),
) -> Matrix {
    let columns = b.ncols() - from;
    let mut result = Matrix::zeros(a.ncols(), columns);
    let part = view(b).submatrix(first, from, a.nrows(), columns);
    matmul(view_mut(&mut result), Accum::Replace, view(a).transpose(), part, 1.0, Par::Seq);
    result
}

/// The rows of `target` from `first` on += panel · x, for a panel as wide as x is high, row by row.
pub(super) fn add_panel_product(target: &mut Matrix, first: usize, panel: &[f32], x: &Matrix) {
    let panel: Vec<f64> = panel.iter().map(|value| f64::from(*value)).collect();
    let rows = panel.len() / x.nrows().max(1);
    let panel = MatRef::from_row_major_slice(&panel, rows, x.nrows());
    let part = view_mut(target).submatrix_mut(first, 0, rows, x.ncols());
    matmul(part, Accum::Add, panel, view(x), 1.0, Par::Seq);
}

/// target += panelᵀ · (the rows of `q` from `first` on), for a panel as wide as `target` is high.
pub(super) fn add_panel_transposed(target: &mut Matrix, first: usize, panel: &[f32], q: &Matrix) {
    let panel: Vec<f64> = panel.iter().map(|value| f64::from(*value)).collect();
    let (columns, width) = target.shape();
    let rows = panel.len() / columns.max(1);
    let panel = MatRef::from_row_major_slice(&panel, rows, columns);
    let part = view(q).submatrix(first, 0, rows, width);
    matmul(view_mut(target), Accum::Add, panel.transpose(), part, 1.0, Par::Seq);
}

/// Products of a matrix's row panels with x and with what comes out: y = M · x and z = Mᵀ · y. In f32
/// within a panel, in f64 over them.
pub(super) struct PanelProducts {
    x: nalgebra::DMatrix<f32>,
    own_y: Vec<f32>,
    own_z: Vec<f32>,
}

impl PanelProducts {
    pub(super) fn new(x: &Matrix) -> Self {
        let x = x.map(|value| value as f32);
        Self { own_y: Vec::new(), own_z: vec![0.0; x.len()], x }
    }

    /// Of the panel that begins with row `first`: writes its rows of y, and adds to z.
    pub(super) fn add(&mut self, first: usize, panel: &[f32], y: &mut Matrix, z: &mut Matrix) {
        let (columns, width) = self.x.shape();
        let rows = panel.len() / columns.max(1);
        self.own_y.resize(rows * width, 0.0);
        let panel = MatRef::from_row_major_slice(panel, rows, columns);
        let x = MatRef::from_column_major_slice(self.x.as_slice(), columns, width);
        let part = MatMut::from_column_major_slice_mut(&mut self.own_y, rows, width);
        matmul(part, Accum::Replace, panel, x, 1.0, Par::Seq);
        let part = MatRef::from_column_major_slice(&self.own_y, rows, width);
        let into = MatMut::from_column_major_slice_mut(&mut self.own_z, columns, width);
        matmul(into, Accum::Replace, panel.transpose(), part, 1.0, Par::Seq);
        for (column, values) in self.own_y.chunks_exact(rows.max(1)).enumerate() {
            for (row, value) in values.iter().enumerate() {
                y[(first + row, column)] = f64::from(*value);
            }
        }
        for (sum, value) in z.as_mut_slice().iter_mut().zip(&self.own_z) {
            *sum += f64::from(*value);
        }
    }
}

/// `value` · 2^`exponent`, also where that power itself is outside the range of f64. Exact, unless the
/// result is subnormal or too large.
pub(super) fn times_power_of_two(value: f64, exponent: i32) -> f64 {
    // Two halves are powers within range for every exponent that two finite numbers can be apart.
    let half = exponent / 2;
    value * 2f64.powi(half) * 2f64.powi(exponent - half)
}

/// Every entry · 2^`exponent`, as [`times_power_of_two`].
pub(super) fn scale_by_power_of_two(values: &mut [f64], exponent: i32) {
    if exponent == 0 {
        return;
    }
    // One power within range does what two halves do, and is made once.
    if exponent.abs() <= 1000 {
        let power = 2f64.powi(exponent);
        for value in values {
            *value *= power;
        }
    } else {
        for value in values {
            *value = times_power_of_two(*value, exponent);
        }
    }
}

/// The largest magnitude; NaN, if an entry is infinite or NaN. In lanes, which vectors can take.
#[inline(always)]
pub(super) fn largest(values: &[f64]) -> f64 {
    const LANES: usize = 8;
    let (mut most, mut finite) = ([0f64; LANES], [0f64; LANES]);
    let (parts, rest) = values.as_chunks::<LANES>();
    let mut take = |lane: usize, value: f64| {
        let size = value.abs();
        most[lane] = if size > most[lane] { size } else { most[lane] };
        // 0, or NaN for what is not finite.
        finite[lane] += value * 0.0;
    };
    for part in parts {
        for (lane, value) in part.iter().enumerate() {
            take(lane, *value);
        }
    }
    for value in rest {
        take(0, *value);
    }
    most.iter().fold(0.0, |largest, value| value.max(largest)) + finite.iter().sum::<f64>()
}

/// The exponent of a matrix's largest entry; 0 if it is zero or not finite.
pub(super) fn exponent(a: &Matrix) -> i32 {
    let largest = largest(a.as_slice());
    if largest == 0.0 || !largest.is_finite() {
        return 0;
    }
    largest.log2().floor() as i32
}

/// A matrix and an exponent e: a = matrix · 2^e, its largest entry in [1, 2); so that squares neither
/// overflow nor vanish. As it is, with e = 0, if it is zero or not finite.
pub(super) fn normalised(mut a: Matrix) -> (Matrix, i32) {
    let exponent = exponent(&a);
    scale_by_power_of_two(a.as_mut_slice(), -exponent);
    (a, exponent)
}

/// Whether no entry is infinite or NaN.
pub(super) fn is_finite(a: &Matrix) -> bool {
    largest(a.as_slice()).is_finite()
}

/// Singular values of a small matrix, descending.
pub(super) fn dense_values(a: &Matrix) -> Vec<f64> {
    dense_svd(a).1
}

/// Thin singular value decomposition of a small matrix: (U, σ descending, V), a = U·diag(σ)·Vᵀ.
///
/// faer's, in f64: exact to rounding on rank-deficient matrices too. Of a matrix that is not finite every
/// σ is NaN, which no output takes.
pub(crate) fn dense_svd(a: &Matrix) -> (Matrix, Vec<f64>, Matrix) {
    let least = a.nrows().min(a.ncols());
    let identities = || (Matrix::identity(a.nrows(), least), Matrix::identity(a.ncols(), least));
    let of_value = |value: f64| {
        let (u, v) = identities();
        (u, vec![value; least], v)
    };
    if !is_finite(a) {
        return of_value(f64::NAN);
    }
    let (scaled, exponent) = normalised(a.clone());
    if scaled.iter().all(|value| *value == 0.0) {
        return of_value(0.0);
    }
    // faer gives up only on matrices that are not finite.
    let Ok(svd) = view(&scaled).thin_svd() else { return of_value(f64::NAN) };
    let copy = |matrix: MatRef<'_, f64>| {
        Matrix::from_fn(matrix.nrows(), matrix.ncols(), |row, column| matrix[(row, column)])
    };
    let values = svd.S().column_vector();
    let values = (0..least).map(|at| times_power_of_two(values[at].max(0.0), exponent)).collect();
    (copy(svd.U()), values, copy(svd.V()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_reach_over_the_whole_range() {
        for (value, exponent, expected) in [
            (1.5, 3, 12.0),
            (5e-324, 1074, 1.0),
            (1.0, -1074, 5e-324),
            (f64::MAX, -2047, f64::MAX * 2f64.powi(-1000) * 2f64.powi(-1047)),
            (0.0, 2000, 0.0),
        ] {
            assert_eq!(times_power_of_two(value, exponent), expected, "{value:e} {exponent}");
        }
    }

    #[test]
    fn singular_values_of_every_magnitude() {
        // diag(3, 1) turned by 45 degrees, so that no entry is zero.
        let shape = Matrix::from_row_slice(2, 2, &[2.0, 1.0, 1.0, 2.0]);
        for exponent in [-1070, -1022, -1000, -500, 0, 500, 1000, 1021] {
            let a = shape.map(|value| times_power_of_two(value, exponent));
            for (found, expected) in dense_values(&a).into_iter().zip([3.0, 1.0]) {
                let expected = times_power_of_two(expected, exponent);
                assert!((found - expected).abs() <= 1e-14 * expected.max(5e-310), "{exponent}");
            }
        }
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut a = shape.clone();
            a[(1, 0)] = bad;
            assert!(dense_values(&a).iter().all(|value| value.is_nan()), "{bad}");
        }
    }
}
