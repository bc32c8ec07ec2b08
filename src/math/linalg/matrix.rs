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

/// Singular values of a small matrix, descending.
pub(super) fn dense_values(a: &Matrix) -> Vec<f64> {
    dense_svd(a).1
}

/// Thin singular value decomposition of a small matrix: (U, σ descending, V), a = U·diag(σ)·Vᵀ.
///
/// faer's, in f64: exact to rounding on rank-deficient matrices too.
pub(crate) fn dense_svd(a: &Matrix) -> (Matrix, Vec<f64>, Matrix) {
    let least = a.nrows().min(a.ncols());
    let largest = a.iter().fold(0f64, |largest, value| largest.max(value.abs()));
    if least == 0 || largest == 0.0 {
        return (
            Matrix::identity(a.nrows(), least),
            vec![0.0; least],
            Matrix::identity(a.ncols(), least),
        );
    }
    // Entries near 1, so that their squares neither overflow nor vanish.
    let scale = 2f64.powi(-(largest.log2().floor() as i32));
    let scaled = a * scale;
    #[allow(clippy::panic, reason = "a caller's error: factors were checked to be finite")]
    let Ok(svd) = view(&scaled).thin_svd() else {
        // faer gives up only on matrices that are not finite, which factors were checked to be.
        panic!("singular values of a matrix that is not finite");
    };
    let copy = |matrix: MatRef<'_, f64>| {
        Matrix::from_fn(matrix.nrows(), matrix.ncols(), |row, column| matrix[(row, column)])
    };
    let values = svd.S().column_vector();
    let values = (0..least).map(|at| values[at].max(0.0) / scale).collect();
    (copy(svd.U()), values, copy(svd.V()))
}
