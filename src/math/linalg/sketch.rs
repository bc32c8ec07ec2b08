//! Randomised singular value decomposition of a matrix that is only given panel by panel (Halko,
//! Martinsson and Tropp 2011, algorithms 4.4 and 5.1), with its true error known.
//!
//! The matrix is never held: a pass asks for its rows, a panel at a time, and multiplies each panel
//! as it comes, by both sides: y = M·x and z = Mᵀ·y are had of one pass, a whole round of subspace
//! iteration. Rounds go on until one more gains next to nothing. ‖M‖² is summed on the way, so
//! ‖M − result‖² = ‖M‖² − Σσ̂² is exact, whatever the sketch missed.
//!
//! One thread works on one matrix, in a fixed order and with panels whose size follows from the
//! shape alone: the result does not depend on how many matrices are worked on at once.

use super::low_rank::{LowRank, Svd};
use super::matrix::{Matrix, dense_values, transposed_product};
use super::panels::{Panels, Passes, each_panel, squares};
use super::qr::Qr;
use crate::math::elements::random::Stream;

/// How closely to look.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Singular values and vectors that must be right.
    pub rank: usize,
    /// Columns beyond them, which make the first ones converge.
    pub oversampling: usize,
    /// Rounds stop when one takes less than this share off the squared error.
    pub least_gain: f64,
    /// Rounds that are made at most.
    pub most_rounds: usize,
    /// What the random columns are drawn from.
    pub stream: Stream,
    /// Columns (n of them high) that span much of the row space, as far as that is known beforehand.
    pub start: Option<&'a Matrix>,
}

impl Settings<'_> {
    /// Those that keep the error within 1 % of the best possible.
    pub fn new(rank: usize, stream: Stream) -> Self {
        Self {
            rank,
            oversampling: 16.max(rank / 4),
            least_gain: 1e-3,
            most_rounds: 12,
            stream,
            start: None,
        }
    }
}

/// A matrix's leading singular values and vectors, and how much of it they leave.
#[derive(Debug, Clone)]
pub struct Sketch {
    /// Some more than were asked for; the ones beyond are not accurate.
    pub svd: Svd,
    /// How many singular values and vectors are accurate.
    pub rank: usize,
    /// ‖M‖², exact; not finite if an element is not.
    pub squared_norm: f64,
    /// Passes over the matrix.
    pub passes: usize,
    /// Whether nothing was left to chance: the decomposition is of the whole matrix.
    pub exact: bool,
}

impl Sketch {
    /// The accurate singular values, descending.
    pub fn singular_values(&self) -> &[f64] {
        let values = self.svd.singular_values();
        &values[..self.rank.min(values.len())]
    }

    /// ‖M − the truncation at `rank`‖² = ‖M‖² − Σσ̂², not below 0. Differences of the two sums below
    /// 1e-12 of them are rounding.
    pub fn squared_error(&self, rank: usize) -> f64 {
        let kept: f64 = self.svd.singular_values().iter().take(rank).map(|v| v * v).sum();
        (self.squared_norm - kept).max(0.0)
    }
}

/// Relative squared error that products in f32 cannot resolve.
const RESOLUTION: f64 = 1e-6;

/// Relative squared error beside which the rounding of products in f32 is nothing.
const COARSE: f64 = 1e-2;

/// Relative squared error near what f32 resolves.
const SMALL: f64 = 1e-8;

/// How uneven the columns of a product may be for its round to be taken apart.
const EVEN: f64 = 1e-3;

/// Sketches a matrix.
///
/// # Errors
/// Whatever its panels fail with.
pub fn sketch<P: Panels>(panels: &mut P, settings: &Settings<'_>) -> Result<Sketch, P::Error> {
    let (rows, columns) = (panels.rows(), panels.columns());
    let least = rows.min(columns);
    let width = settings.rank.saturating_add(settings.oversampling);
    // Beyond half of all directions a sketch costs more than it saves, and as much memory.
    if width >= least.div_ceil(2) {
        return exact(panels);
    }
    let mut passes = Passes { panels, count: 0, squared_norm: None };
    let mut x = orthonormal(&first_columns(columns, width, settings));
    let mut progress = Progress { settings, squared_norm: 0.0, kept: 0.0, gain: f64::INFINITY };
    for round in 1.. {
        let (y, z) = passes.both(&x)?;
        let squared_norm = passes.squared_norm.unwrap_or(0.0);
        if squared_norm == 0.0 || !squared_norm.is_finite() {
            let svd = LowRank::zero(rows, columns).svd();
            return Ok(Sketch { svd, rank: 0, squared_norm, passes: passes.count, exact: true });
        }
        progress.squared_norm = squared_norm;
        let left = Qr::new(y);
        let mut done = progress.done(&transposed_product(left.r(), left.r()), round);
        let across = across(left.r(), &z);
        if let Some(across) = &across {
            done |= progress.done(&transposed_product(across, across), round);
        }
        match across {
            // Where much is left, what f32 rounds away is nothing beside it: M is seen through Q.
            Some(across) if done && progress.left() > COARSE => {
                let q = left.apply(&Matrix::identity(width, width));
                return Ok(passes.finish(&LowRank::new(q, across.transpose()), settings.rank));
            }
            Some(across) => x = orthonormal(&across),
            None => x = orthonormal(&z),
        }
        if done {
            break;
        }
    }
    // The last product is made in f64: small singular values are not drowned by the largest.
    let y = passes.right(&x)?;
    if progress.left() > SMALL {
        return Ok(passes.finish(&LowRank::new(y, x.transpose()), settings.rank));
    }
    // Nor are the vectors of the smallest: where next to nothing is left, both are.
    let q = orthonormal(&y);
    let z = passes.left(&q)?;
    Ok(passes.finish(&LowRank::new(q, z.transpose()), settings.rank))
}

/// Mᵀ · Q of z = Mᵀ · y and y = Q · r; nothing if r is so uneven that what z lost in f32 would count.
fn across(r: &Matrix, z: &Matrix) -> Option<Matrix> {
    let diagonal = r.diagonal().map(f64::abs);
    if diagonal.min() <= EVEN * diagonal.max() {
        return None;
    }
    // z = across · r, column after column.
    let mut across = z.transpose();
    r.tr_solve_upper_triangular_mut(&mut across).then(|| across.transpose())
}

/// The decomposition of the whole matrix, in f64: for small ones, and where no sketch is wanted. Holds
/// the matrix.
///
/// # Errors
/// Whatever its panels fail with.
pub fn exact<P: Panels>(panels: &mut P) -> Result<Sketch, P::Error> {
    let (rows, columns) = (panels.rows(), panels.columns());
    let mut whole = Matrix::zeros(rows, columns);
    let mut squared_norm = 0.0;
    each_panel(panels, |first, panel| {
        squared_norm += squares(panel);
        for (at, row) in panel.chunks_exact(columns).enumerate() {
            for (column, value) in row.iter().enumerate() {
                whole[(first + at, column)] = f64::from(*value);
            }
        }
    })?;
    let least = rows.min(columns);
    let low_rank = match squared_norm.is_finite() {
        false => LowRank::zero(rows, columns),
        true if rows >= columns => LowRank::new(whole, Matrix::identity(columns, columns)),
        true => LowRank::new(Matrix::identity(rows, rows), whole),
    };
    Ok(Sketch { svd: low_rank.svd(), rank: least, squared_norm, passes: 1, exact: true })
}

/// Known columns first, then random ones, uniform in [−1, 1): as good as Gaussian ones for this, and
/// the same on every machine.
fn first_columns(rows: usize, width: usize, settings: &Settings<'_>) -> Matrix {
    let mut columns = Matrix::from_fn(rows, width, |row, column| {
        2.0 * settings.stream.uniform((column * rows + row) as u64) - 1.0
    });
    if let Some(start) = settings.start {
        assert_eq!(start.nrows(), rows, "height of the columns to start with");
        // All that fit but for one: some chance is needed to find what the start does not know.
        let known = start.ncols().min(width.saturating_sub(settings.oversampling.min(8)));
        columns.columns_mut(0, known).copy_from(&start.columns(0, known));
    }
    columns
}

fn orthonormal(a: &Matrix) -> Matrix {
    let qr = Qr::new(a.clone());
    let count = qr.r().nrows();
    qr.apply(&Matrix::identity(count, count))
}

impl<P: Panels> Passes<'_, P> {
    fn finish(self, low_rank: &LowRank, rank: usize) -> Sketch {
        let squared_norm = self.squared_norm.unwrap_or(0.0);
        Sketch { svd: low_rank.svd(), rank, squared_norm, passes: self.count, exact: false }
    }
}

/// Whether another round is worth it.
struct Progress<'a> {
    settings: &'a Settings<'a>,
    squared_norm: f64,
    /// Σσ̂² of the leading ones after the last step.
    kept: f64,
    /// Share that the last step took off the squared error.
    gain: f64,
}

impl Progress<'_> {
    /// The share of the squared norm that is left.
    fn left(&self) -> f64 {
        (self.squared_norm - self.kept) / self.squared_norm
    }

    /// Looks at the latest product's inner products (its columns span the space found) and decides.
    fn done(&mut self, gram: &Matrix, round: usize) -> bool {
        let kept: f64 = dense_values(gram).iter().take(self.settings.rank).sum();
        let error = self.squared_norm - kept;
        if error <= RESOLUTION * self.squared_norm && round >= 2 {
            self.kept = kept;
            return true;
        }
        let gain = (kept - self.kept) / error.max(RESOLUTION * self.squared_norm);
        // Gains shrink by a steady factor: what is still to come follows from the last two.
        let factor = (gain / self.gain).clamp(0.0, 1.0);
        let to_come = if factor < 1.0 { gain * factor / (1.0 - factor) } else { f64::INFINITY };
        (self.kept, self.gain) = (kept, gain);
        let least = self.settings.least_gain;
        (gain < least && to_come < 4.0 * least) || round >= self.settings.most_rounds
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::math::linalg::matrix::product;

    struct Given(Matrix);

    impl Panels for Given {
        type Error = Infallible;
        fn rows(&self) -> usize {
            self.0.nrows()
        }
        fn columns(&self) -> usize {
            self.0.ncols()
        }
        fn fill(&mut self, first: usize, out: &mut [f32]) -> Result<(), Infallible> {
            let columns = self.0.ncols();
            for (at, slot) in out.iter_mut().enumerate() {
                *slot = self.0[(first + at / columns, at % columns)] as f32;
            }
            Ok(())
        }
    }

    /// U·diag(σ)·Vᵀ with random orthonormal U and V.
    fn with_spectrum(rows: usize, columns: usize, values: &[f64], seed: u64) -> Matrix {
        let draw = |name, rows, columns: usize| {
            let stream = Stream::new(seed, name, 0);
            let at = |row, column| stream.uniform((row * columns + column) as u64) - 0.5;
            orthonormal(&Matrix::from_fn(rows, columns, at))
        };
        let mut u = draw("u", rows, values.len());
        for (at, value) in values.iter().enumerate() {
            u.column_mut(at).scale_mut(*value);
        }
        product(&u, &draw("v", columns, values.len()).transpose())
    }

    fn of(matrix: &Matrix, rank: usize) -> Sketch {
        let settings = Settings::new(rank, Stream::new(0, "m", 0));
        match sketch(&mut Given(matrix.clone()), &settings) {
            Ok(sketch) => sketch,
        }
    }

    fn excess(matrix: &Matrix, rank: usize, values: &[f64]) -> f64 {
        let sketch = of(matrix, rank);
        let best: f64 = values.iter().skip(rank).map(|value| value * value).sum::<f64>().sqrt();
        let error = (matrix - sketch.svd.truncate(rank).dense()).norm();
        let certified = sketch.squared_error(rank).sqrt();
        assert!(
            (error - certified).abs() <= 1e-5 * error + 1e-6 * matrix.norm(),
            "{error} {certified}"
        );
        error / best
    }

    #[test]
    fn the_error_is_within_a_hundredth_of_the_best() {
        let count = 160;
        let spectra: [(&str, Vec<f64>); 4] = [
            ("power law", (1..=count).map(|at| f64::from(at).powf(-0.6)).collect()),
            ("steep", (0..count).map(|at| 0.8f64.powi(at)).collect()),
            ("low rank and noise", (0..count).map(|at| if at < 8 { 1.0 } else { 0.02 }).collect()),
            ("flat", vec![1.0; count as usize]),
        ];
        for (name, values) in spectra {
            let matrix = with_spectrum(240, count as usize, &values, 1);
            for rank in [4, 8, 16] {
                let excess = excess(&matrix, rank, &values);
                assert!(excess < 1.01, "{name}, rank {rank}: {excess}");
            }
        }
    }

    #[test]
    fn what_is_known_beforehand_saves_rounds() {
        let values: Vec<f64> = (1..=150).map(|at| f64::from(at).powf(-0.4)).collect();
        let matrix = with_spectrum(200, 150, &values, 2);
        let cold = of(&matrix, 8);
        let (_, start) = cold.svd.vectors(8);
        let settings = Settings { start: Some(&start), ..Settings::new(8, Stream::new(0, "m", 0)) };
        let Ok(warm) = sketch(&mut Given(matrix), &settings);
        assert!(warm.passes < cold.passes, "{} {}", warm.passes, cold.passes);
        assert!(warm.squared_error(8) <= cold.squared_error(8) * (1.0 + 1e-3));
    }

    #[test]
    fn nothing_and_the_infinite_are_told() {
        let nothing = of(&Matrix::zeros(100, 90), 4);
        assert_eq!((nothing.rank, nothing.squared_norm), (0, 0.0));
        let mut matrix = Matrix::zeros(100, 90);
        matrix[(3, 4)] = f64::INFINITY;
        assert!(!of(&matrix, 4).squared_norm.is_finite());
        assert!(!of(&matrix, 80).squared_norm.is_finite());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn low_rank_matrices_are_found_whole(
            rows in 1usize..150, columns in 1usize..150, rank in 1usize..6, seed: u64,
        ) {
            let rank = rank.min(rows).min(columns);
            let values: Vec<f64> = (0..rank).map(|at| 1.0 / (1 + at) as f64).collect();
            let matrix = with_spectrum(rows, columns, &values, seed);
            let sketch = of(&matrix, rank);
            for (at, (found, value)) in sketch.singular_values().iter().zip(&values).enumerate() {
                prop_assert!((found - value).abs() < 1e-6, "σ {at}: {found} {value}");
            }
            prop_assert!((sketch.svd.truncate(rank).dense() - &matrix).norm() < 1e-6);
            prop_assert!((sketch.squared_norm - matrix.norm_squared()).abs() < 1e-6);
        }
    }
}
