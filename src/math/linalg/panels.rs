//! A matrix that is only given panel by panel, and passes over it: it is never held.

use super::matrix::{Matrix, PanelProducts, add_panel_product, add_panel_transposed};

/// Bytes of a panel: small enough for the core's own cache.
const PANEL_BYTES: usize = 1 << 20;

/// A matrix whose rows can be asked for again and again.
pub trait Panels {
    /// What reading can fail with; [`std::convert::Infallible`] for what is computed.
    type Error;

    /// m.
    fn rows(&self) -> usize;

    /// n.
    fn columns(&self) -> usize;

    /// Writes the rows from `first` on into `out`, row by row, as many as it holds; the same values
    /// every time.
    ///
    /// # Errors
    /// Whatever reading says.
    fn fill(&mut self, first: usize, out: &mut [f32]) -> Result<(), Self::Error>;
}

/// Σx², summed in f64.
pub(super) fn squares(panel: &[f32]) -> f64 {
    // Eight sums that do not wait for one another.
    let (chunks, rest) = panel.as_chunks::<8>();
    let mut sums = [0f64; 8];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    let rest: f64 = rest.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    sums.iter().sum::<f64>() + rest
}

/// Calls `with` for every panel, in order, with the number of its first row.
pub(super) fn each_panel<P: Panels>(
    panels: &mut P,
    mut with: impl FnMut(usize, &[f32]),
) -> Result<(), P::Error> {
    let (rows, columns) = (panels.rows(), panels.columns());
    let height = (PANEL_BYTES / (4 * columns.max(1))).clamp(16, 512);
    let mut panel = vec![0f32; height.min(rows) * columns];
    for first in (0..rows).step_by(height) {
        let count = height.min(rows - first);
        let panel = &mut panel[..count * columns];
        panels.fill(first, panel)?;
        with(first, panel);
    }
    Ok(())
}

/// Products with the matrix, and what they found on the way.
pub(super) struct Passes<'a, P> {
    /// The matrix.
    pub(super) panels: &'a mut P,
    /// Passes made.
    pub(super) count: usize,
    /// ‖M‖², once it is known.
    pub(super) squared_norm: Option<f64>,
}

impl<P: Panels> Passes<'_, P> {
    /// y = M · x and Mᵀ · y, in f32 within a panel.
    pub(super) fn both(&mut self, x: &Matrix) -> Result<(Matrix, Matrix), P::Error> {
        let (rows, columns) = (self.panels.rows(), self.panels.columns());
        let mut y = Matrix::zeros(rows, x.ncols());
        let mut z = Matrix::zeros(columns, x.ncols());
        let mut norm = 0.0;
        let measured = self.squared_norm.is_some();
        let mut products = PanelProducts::new(x);
        each_panel(self.panels, |first, panel| {
            if !measured {
                norm += squares(panel);
            }
            products.add(first, panel, &mut y, &mut z);
        })?;
        self.squared_norm.get_or_insert(norm);
        self.count += 1;
        Ok((y, z))
    }

    /// M · x, in f64.
    pub(super) fn right(&mut self, x: &Matrix) -> Result<Matrix, P::Error> {
        let mut result = Matrix::zeros(self.panels.rows(), x.ncols());
        each_panel(self.panels, |first, panel| add_panel_product(&mut result, first, panel, x))?;
        self.count += 1;
        Ok(result)
    }

    /// Mᵀ · q, in f64.
    pub(super) fn left(&mut self, q: &Matrix) -> Result<Matrix, P::Error> {
        let mut result = Matrix::zeros(self.panels.columns(), q.ncols());
        each_panel(self.panels, |first, panel| add_panel_transposed(&mut result, first, panel, q))?;
        self.count += 1;
        Ok(result)
    }
}
