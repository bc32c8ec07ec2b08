//! What singular values and pairs of low-rank matrices tell: diagnostics without the product.

use super::low_rank::LowRank;
use super::matrix::{Matrix, transposed_product};

/// Summary of one matrix's singular values.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// σ, descending.
    pub singular_values: Vec<f64>,
}

impl Spectrum {
    /// ‖·‖ in the Frobenius sense: √Σσ². NaN if a σ is.
    pub fn norm(&self) -> f64 {
        let first = self.singular_values.first().copied().unwrap_or(0.0);
        if first == 0.0 { 0.0 } else { first * self.relative_energy().sqrt() }
    }

    /// Σσ² / σ₁²: within range whatever the magnitude.
    fn relative_energy(&self) -> f64 {
        let first = self.singular_values.first().copied().unwrap_or(0.0);
        self.singular_values.iter().map(|value| (value / first) * (value / first)).sum()
    }

    /// exp of the entropy of σ/Σσ (Roy and Vetterli 2007); 0 for a zero matrix.
    pub fn effective_rank(&self) -> f64 {
        let first = self.singular_values.first().copied().unwrap_or(0.0);
        if first == 0.0 {
            return 0.0;
        }
        let total: f64 = self.singular_values.iter().map(|value| value / first).sum();
        let shares = self.singular_values.iter().map(|value| value / first / total);
        // A NaN passes, and makes the sum one.
        shares.filter(|share| *share != 0.0).map(|share| -share * share.ln()).sum::<f64>().exp()
    }

    /// Σσ² / σ₁²; 0 for a zero matrix.
    pub fn stable_rank(&self) -> f64 {
        match self.singular_values.first() {
            None | Some(0.0) => 0.0,
            Some(_) => self.relative_energy(),
        }
    }

    /// The fewest values with Σσ² ≥ `share` of all; none if they are not finite.
    pub fn rank_for_energy(&self, share: f64) -> Option<usize> {
        let first = self.singular_values.first().copied().unwrap_or(0.0);
        if first == 0.0 {
            return Some(0);
        }
        let total = self.relative_energy();
        if !total.is_finite() {
            return None;
        }
        let mut sum = 0.0;
        let reaches = |value: &f64| {
            sum += (value / first) * (value / first);
            sum >= share * total * (1.0 - 1e-14)
        };
        let reached = self.singular_values.iter().position(reaches);
        Some(reached.map_or(self.singular_values.len(), |at| at + 1))
    }
}

/// How much two spaces share: ‖aᵀ·b‖² / min(columns), in [0, 1] (Hu et al. 2021, §7.2).
///
/// `a` and `b` are orthonormal bases, as many rows as the surrounding space has dimensions.
///
/// # Panics
/// If they have different numbers of rows.
#[track_caller]
pub fn overlap(a: &Matrix, b: &Matrix) -> f64 {
    match a.ncols().min(b.ncols()) {
        0 => 0.0,
        least => (transposed_product(a, b).norm_squared() / least as f64).clamp(0.0, 1.0),
    }
}

/// Share of sampled elements at which two matrices have opposite signs; zeros agree with everything.
///
/// `samples` elements are drawn with a generator seeded by `seed`; the same seed, the same elements.
pub fn sign_conflict(a: &LowRank, b: &LowRank, samples: usize, seed: u64) -> f64 {
    let (rows, columns) = (a.rows(), a.columns());
    if rows * columns == 0 || samples == 0 {
        return 0.0;
    }
    let at = |matrix: &LowRank, row: usize, column: usize| -> f64 {
        let row = matrix.up.row(row);
        row.iter().zip(matrix.down.column(column).iter()).map(|(a, b)| a * b).sum()
    };
    let mut counter = 0;
    let mut draw = |below: usize| {
        counter += 1;
        (random(seed, counter) >> 11) as usize % below
    };
    let mut conflicts = 0usize;
    for _ in 0..samples {
        let (row, column) = (draw(rows), draw(columns));
        conflicts += usize::from(at(a, row, column) * at(b, row, column) < 0.0);
    }
    conflicts as f64 / samples as f64
}

/// Number `counter` of the splitmix64 sequence of `seed` (Steele, Lea and Flood 2014).
fn random(seed: u64, counter: u64) -> u64 {
    let mut z = seed.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_known_spectra() {
        let flat = Spectrum { singular_values: vec![2.0; 4] };
        assert!((flat.effective_rank() - 4.0).abs() < 1e-12);
        assert_eq!(flat.stable_rank(), 4.0);
        assert_eq!(flat.rank_for_energy(0.5), Some(2));
        assert_eq!(flat.rank_for_energy(1.0), Some(4));
        assert_eq!(flat.norm(), 4.0);
        let zero = Spectrum { singular_values: vec![0.0; 2] };
        assert_eq!(
            (zero.effective_rank(), zero.stable_rank(), zero.rank_for_energy(0.9)),
            (0.0, 0.0, Some(0))
        );
    }

    #[test]
    fn spectra_of_every_magnitude_and_of_none() {
        for scale in [1e-320, 1e-200, 1e200, 1e307] {
            let spectrum = Spectrum { singular_values: vec![4.0 * scale, 3.0 * scale] };
            assert!((spectrum.norm() / scale / 5.0 - 1.0).abs() < 1e-3, "{scale:e}");
            assert!((spectrum.stable_rank() - 25.0 / 16.0).abs() < 1e-2, "{scale:e}");
            assert_eq!(spectrum.rank_for_energy(0.9), Some(2), "{scale:e}");
        }
        let bad = Spectrum { singular_values: vec![f64::NAN; 2] };
        assert!(bad.norm().is_nan() && bad.effective_rank().is_nan() && bad.stable_rank().is_nan());
        assert_eq!(bad.rank_for_energy(0.9), None);
    }

    #[test]
    fn overlap_of_equal_and_orthogonal_spaces() {
        let a = Matrix::identity(6, 2);
        let mut b = Matrix::zeros(6, 2);
        b[(4, 0)] = 1.0;
        b[(5, 1)] = 1.0;
        assert!((overlap(&a, &a) - 1.0).abs() < 1e-12);
        assert!(overlap(&a, &b) < 1e-12);
    }

    #[test]
    fn signs_conflict_where_one_is_the_negative() {
        let a = LowRank::new(Matrix::from_element(4, 1, 1.0), Matrix::from_element(1, 5, 1.0));
        let minus = LowRank::new(-&a.up, a.down.clone());
        assert_eq!(sign_conflict(&a, &a, 100, 1), 0.0);
        assert_eq!(sign_conflict(&a, &minus, 100, 1), 1.0);
    }
}
