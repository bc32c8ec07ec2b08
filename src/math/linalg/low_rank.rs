//! Low-rank matrices kept as their factors: sums, norms, inner products and the exact singular value
//! decomposition, all without forming the product.

use std::borrow::Cow;

use super::matrix::{
    Matrix, add_product, dense_svd, exponent, largest, normalised, product, product_transposed,
    scale_by_power_of_two, times_power_of_two, transposed_product,
};
use super::qr::Qr;
use crate::math::kernel::factor::Factor;
use crate::math::rank::policy::NEGLIGIBLE;

/// up · down, with up: m × r and down: r × n.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    /// m × r.
    pub up: Matrix,
    /// r × n.
    pub down: Matrix,
}

impl LowRank {
    /// From its factors.
    ///
    /// # Panics
    /// If their inner dimensions differ.
    #[track_caller]
    pub fn new(up: Matrix, down: Matrix) -> Self {
        assert_eq!(up.ncols(), down.nrows(), "rank of the factors");
        Self { up, down }
    }

    /// The zero matrix of m × n, at rank 0.
    pub fn zero(rows: usize, columns: usize) -> Self {
        Self::new(Matrix::zeros(rows, 0), Matrix::zeros(0, columns))
    }

    /// From stored factors, times a coefficient: √|c| on each side, its sign on `down`.
    ///
    /// # Panics
    /// If their inner dimensions differ.
    #[track_caller]
    pub fn from_factors(up: &Factor, down: &Factor, coefficient: f64) -> Self {
        let share = coefficient.abs().sqrt();
        // Rows of a factor are columns of its transpose, which is then turned in blocks.
        let of = |factor: &Factor, scale: f64| {
            let values = factor.values.iter().map(|value| f64::from(*value) * scale).collect();
            Matrix::from_vec(factor.columns, factor.rows, values).transpose()
        };
        Self::new(of(up, share), of(down, share * coefficient.signum()))
    }

    /// Rows and columns exchanged.
    #[must_use]
    pub fn transposed(&self) -> Self {
        Self::new(self.down.transpose(), self.up.transpose())
    }

    /// The factors in f32, as the merge kernel takes them.
    pub fn to_factors(&self) -> (Factor, Factor) {
        // A matrix is stored by columns, so its transpose's values are its own by rows.
        let of = |matrix: &Matrix| {
            let values = matrix.transpose().iter().map(|value| *value as f32).collect();
            Factor::new(matrix.nrows(), matrix.ncols(), values)
        };
        (of(&self.up), of(&self.down))
    }

    /// m.
    pub fn rows(&self) -> usize {
        self.up.nrows()
    }

    /// n.
    pub fn columns(&self) -> usize {
        self.down.ncols()
    }

    /// r, the number of columns of `up`; an upper bound on the rank of the matrix.
    pub fn rank(&self) -> usize {
        self.up.ncols()
    }

    /// The sum of matrices of m × n, by stacking: its rank is the sum of theirs.
    ///
    /// # Panics
    /// If a part has another shape.
    #[track_caller]
    pub fn sum(rows: usize, columns: usize, parts: &[Self]) -> Self {
        let parts: Vec<(&Self, f64)> = parts.iter().map(|part| (part, 1.0)).collect();
        Self::weighted_sum(rows, columns, &parts)
    }

    /// The sum of matrices of m × n, each times a coefficient (√|c| on each side, its sign on `down`), by stacking.
    ///
    /// # Panics
    /// If a part has another shape.
    #[track_caller]
    pub fn weighted_sum(rows: usize, columns: usize, parts: &[(&Self, f64)]) -> Self {
        let rank = parts.iter().map(|(part, _)| part.rank()).sum();
        let (mut up, mut down) = (Matrix::zeros(rows, rank), Matrix::zeros(rank, columns));
        let mut at = 0;
        for (part, coefficient) in parts {
            assert_eq!((part.rows(), part.columns()), (rows, columns), "shape of a summand");
            let share = coefficient.abs().sqrt();
            let mut own = up.columns_mut(at, part.rank());
            own.zip_apply(&part.up, |slot, value| *slot = value * share);
            let share = share * coefficient.signum();
            let mut own = down.rows_mut(at, part.rank());
            own.zip_apply(&part.down, |slot, value| *slot = value * share);
            at += part.rank();
        }
        Self::new(up, down)
    }

    /// ⟨self, other⟩ = tr(selfᵀ · other) in the Frobenius sense; O((m + n)·r·r').
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn inner(&self, other: &Self) -> f64 {
        let ups = transposed_product(&self.up, &other.up);
        let downs = product_transposed(&self.down, &other.down);
        ups.component_mul(&downs).sum()
    }

    /// ‖self‖², by [`LowRank::inner`]; not below 0.
    pub fn squared_norm(&self) -> f64 {
        self.inner(self).max(0.0)
    }

    /// The matrix itself, m × n: for tests and small shapes.
    pub fn dense(&self) -> Matrix {
        product(&self.up, &self.down)
    }

    /// The exact singular value decomposition.
    ///
    /// QR of both factors, then the SVD of the r × r core R_up · R_downᵀ, in f64 throughout;
    /// O((m + n)·r² + r³) time. Q is kept as reflectors, so vectors are formed only for what is asked
    /// of [`Svd::truncate`]. Where r is above the shorter side, the matrix itself is smaller than its
    /// factors, and is decomposed instead: O(m·n·(r + min(m, n))).
    pub fn svd(&self) -> Svd {
        if self.rank() > self.rows().min(self.columns()) {
            return self.dense_way();
        }
        self.factor_way()
    }

    fn factor_way(&self) -> Svd {
        // Scaled by powers of two, factors of any magnitude are taken apart alike, and bit for bit.
        let (up, up_exponent) = normalised(self.up.clone());
        let (down, down_exponent) = normalised(self.down.transpose());
        let (up, down) = (Qr::new(up), Qr::new(down));
        let core = product_transposed(up.r(), down.r());
        Svd::new(Some(up), Some(down), (up_exponent, down_exponent), &core)
    }

    /// By the QR of the dense matrix along its longer side.
    fn dense_way(&self) -> Svd {
        let (dense, exponents) = self.scaled_dense();
        if self.rows() >= self.columns() {
            let up = Qr::new(dense);
            let core = up.r().clone();
            return Svd::new(Some(up), None, exponents, &core);
        }
        let down = Qr::new(dense.transpose());
        let core = down.r().transpose();
        Svd::new(None, Some(down), exponents, &core)
    }

    /// The matrix over 2^(sum of the exponents), which bring the largest entries of the factors near 1. Made of
    /// some columns of `up` at a time: a scaled copy of the factors would be larger than the matrix.
    fn scaled_dense(&self) -> (Matrix, (i32, i32)) {
        const TOGETHER: usize = 128;
        let (up_exponent, down_exponent) = (exponent(&self.up), exponent(&self.down));
        let mut dense = Matrix::zeros(self.rows(), self.columns());
        for first in (0..self.rank()).step_by(TOGETHER) {
            let count = TOGETHER.min(self.rank() - first);
            let mut up = self.up.columns(first, count).clone_owned();
            scale_by_power_of_two(up.as_mut_slice(), -up_exponent);
            let mut down = self.down.rows(first, count).clone_owned();
            scale_by_power_of_two(down.as_mut_slice(), -down_exponent);
            add_product(&mut dense, &up, &down);
        }
        (dense, (up_exponent, down_exponent))
    }
}

/// An orthonormal basis of what the columns of a matrix span, by its singular vectors; columns that are
/// there only by rounding add nothing to it.
pub fn orthonormal_basis(columns: Matrix) -> Matrix {
    let width = columns.ncols();
    let svd = LowRank::new(columns, Matrix::identity(width, width)).svd();
    svd.vectors(svd.numerical_rank()).0
}

/// A decomposition up·U·diag(σ)·(down·V)ᵀ whose orthogonal outer parts are still reflectors, or nothing where
/// they are the identity.
#[derive(Debug, Clone)]
pub struct Svd {
    up: Option<Qr>,
    down: Option<Qr>,
    /// What the powers of two were that were taken out of both factors.
    exponents: (i32, i32),
    u: Matrix,
    v: Matrix,
    singular_values: Vec<f64>,
}

impl Svd {
    /// From the outer parts, the exponents taken out of the factors, and what is between the outer parts.
    fn new(up: Option<Qr>, down: Option<Qr>, exponents: (i32, i32), core: &Matrix) -> Self {
        let (u, mut singular_values, v) = dense_svd(core);
        for value in &mut singular_values {
            *value = times_power_of_two(*value, exponents.0 + exponents.1);
        }
        Self { up, down, exponents, u, v, singular_values }
    }

    /// σ, descending; min(m, n, r) of them.
    pub fn singular_values(&self) -> &[f64] {
        &self.singular_values
    }

    /// The factors of what was decomposed, in the coordinates of the orthonormal columns that QR found: R_up · R_downᵀ.
    /// Norms and inner products of columns of `up` and of rows of `down` are those of the factors, at the cost of
    /// R × R numbers. The factors as they are, if the matrix itself was decomposed.
    pub fn coordinates<'a>(&self, decomposed: &'a LowRank) -> Cow<'a, LowRank> {
        let (Some(up), Some(down)) = (&self.up, &self.down) else {
            return Cow::Borrowed(decomposed);
        };
        let of = |r: &Matrix, exponent: i32| {
            let mut r = r.clone();
            scale_by_power_of_two(r.as_mut_slice(), exponent);
            r
        };
        let (up_exponent, down_exponent) = self.exponents;
        let (up, down) = (of(up.r(), up_exponent), of(down.r(), down_exponent));
        Cow::Owned(LowRank::new(up, down.transpose()))
    }

    /// How many σ are more than rounding of factors in f32: the rank that `lossless` keeps. All of them,
    /// if they are not finite: nothing is known to be negligible then.
    pub fn numerical_rank(&self) -> usize {
        let least = self.singular_values.first().map_or(0.0, |first| first * NEGLIGIBLE);
        if !least.is_finite() {
            return self.singular_values.len();
        }
        self.singular_values.iter().take_while(|value| **value > least).count()
    }

    /// The left and right singular vectors of the first `rank` values: m × rank and n × rank. The
    /// largest entry of every left vector is positive, so that the same matrix gives the same vectors.
    pub fn vectors(&self, rank: usize) -> (Matrix, Matrix) {
        let rank = rank.min(self.singular_values.len());
        let of = |outer: &Option<Qr>, inner: &Matrix| {
            let inner = inner.columns(0, rank).clone_owned();
            match outer {
                Some(outer) => outer.apply(&inner),
                None => inner,
            }
        };
        let (mut left, mut right) = (of(&self.up, &self.u), of(&self.down, &self.v));
        for column in 0..rank {
            // The first of equals decides, whatever the order of the sum was.
            let values = left.column(column);
            let most = largest(values.as_slice());
            let first = values.iter().find(|value| value.abs() == most);
            if first.is_some_and(|value| *value < 0.0) {
                left.column_mut(column).neg_mut();
                right.column_mut(column).neg_mut();
            }
        }
        (left, right)
    }

    /// The best approximation of rank at most `rank` in the Frobenius norm (Eckart–Young), with √σ on
    /// each side; its squared error is Σ σ² of what it drops.
    pub fn truncate(&self, rank: usize) -> LowRank {
        let (mut up, mut right) = self.vectors(rank);
        for (at, value) in self.singular_values.iter().take(up.ncols()).enumerate() {
            up.column_mut(at).scale_mut(value.sqrt());
            right.column_mut(at).scale_mut(value.sqrt());
        }
        LowRank::new(up, right.transpose())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(seed: &mut u64, rows: usize, columns: usize) -> Matrix {
        Matrix::from_fn(rows, columns, |_, _| {
            *seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (*seed >> 33) as f64 / f64::from(1u32 << 30) - 1.0
        })
    }

    fn random_low_rank(seed: &mut u64, rows: usize, columns: usize, rank: usize) -> LowRank {
        LowRank::new(random(seed, rows, rank), random(seed, rank, columns))
    }

    /// Singular values by one-sided Jacobi on the dense matrix: slow, simple, and accurate to the
    /// last digits (Demmel and Veselić 1992).
    fn reference_values(a: &Matrix) -> Vec<f64> {
        let mut a = if a.nrows() < a.ncols() { a.transpose() } else { a.clone() };
        for _ in 0..60 {
            let mut off = 0f64;
            for p in 0..a.ncols() {
                for q in p + 1..a.ncols() {
                    let (x, y) = (a.column(p).clone_owned(), a.column(q).clone_owned());
                    let (alpha, beta, gamma) = (x.dot(&x), y.dot(&y), x.dot(&y));
                    if gamma == 0.0 {
                        continue;
                    }
                    off = off.max(gamma.abs() / (alpha * beta).sqrt());
                    let zeta = (beta - alpha) / (2.0 * gamma);
                    let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                    let c = 1.0 / (1.0 + t * t).sqrt();
                    a.set_column(p, &(&x * c - &y * (c * t)));
                    a.set_column(q, &(&x * (c * t) + &y * c));
                }
            }
            if off < 1e-15 {
                break;
            }
        }
        let mut values: Vec<f64> = a.column_iter().map(|column| column.norm()).collect();
        values.sort_by(|a, b| b.total_cmp(a));
        values
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn values_and_errors_are_exact(
            rows in 1usize..40, columns in 1usize..40, rank in 1usize..50, keep in 0usize..20, seed: u64,
        ) {
            let mut seed = seed;
            let matrix = random_low_rank(&mut seed, rows, columns, rank);
            let dense = matrix.dense();
            let svd = matrix.svd();
            let expected = reference_values(&dense);
            for (at, value) in svd.singular_values().iter().enumerate() {
                prop_assert!((value - expected[at]).abs() <= 1e-10 * expected[0], "σ {at}");
            }
            let cut = svd.truncate(keep);
            prop_assert!(cut.rank() <= keep);
            let error = (&dense - cut.dense()).norm();
            let dropped: f64 = expected.iter().skip(keep).map(|value| value * value).sum::<f64>().sqrt();
            prop_assert!((error - dropped).abs() <= 1e-6 * expected[0], "{error} {dropped}");
            let full = svd.truncate(usize::MAX);
            prop_assert!((&dense - full.dense()).amax() <= 1e-12 * expected[0].max(1e-300));
            prop_assert!((matrix.squared_norm() - dense.norm_squared()).abs() <= 1e-10 * dense.norm_squared());
        }

        #[test]
        fn duplicated_adapters_lose_no_accuracy(
            rows in 4usize..60, columns in 4usize..60, rank in 1usize..12, seed: u64,
        ) {
            let mut seed = seed;
            let a = random_low_rank(&mut seed, rows, columns, rank);
            let twice = LowRank::sum(rows, columns, &[a.clone(), a.clone()]);
            let svd = twice.svd();
            let largest = svd.singular_values()[0];
            prop_assert!((svd.truncate(rank).dense() - a.dense() * 2.0).amax() <= 1e-12 * largest);
            for value in svd.singular_values().iter().skip(rank) {
                prop_assert!(*value <= 1e-12 * largest);
            }
            let mut minus = a.clone();
            minus.down.neg_mut();
            let nothing = LowRank::sum(rows, columns, &[a, minus]);
            prop_assert!(nothing.svd().singular_values()[0] <= 1e-12 * largest);
        }

        #[test]
        fn inner_products_are_those_of_the_matrices(
            rows in 1usize..30, columns in 1usize..30, a in 0usize..8, b in 0usize..8, seed: u64,
        ) {
            let mut seed = seed;
            let a = random_low_rank(&mut seed, rows, columns, a);
            let b = random_low_rank(&mut seed, rows, columns, b);
            let expected = a.dense().dot(&b.dense());
            prop_assert!((a.inner(&b) - expected).abs() <= 1e-10 * (1.0 + expected.abs()));
            let sum = LowRank::sum(rows, columns, &[a.clone(), b.clone()]);
            prop_assert!((sum.dense() - (a.dense() + b.dense())).amax() < 1e-12);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_matrix_and_its_factors_come_apart_alike(
            rows in 1usize..40, columns in 1usize..40, beyond in 1usize..200, power in -300i32..300, seed: u64,
        ) {
            let mut seed = seed;
            let size = times_power_of_two(1.0, power);
            let mut matrix = random_low_rank(&mut seed, rows, columns, rows.min(columns) + beyond);
            (matrix.up, matrix.down) = (matrix.up * size, matrix.down / size);
            let (dense, factors) = (matrix.dense_way(), matrix.factor_way());
            let largest = factors.singular_values()[0];
            prop_assert_eq!(dense.singular_values().len(), factors.singular_values().len());
            for (found, expected) in dense.singular_values().iter().zip(factors.singular_values()) {
                prop_assert!((found - expected).abs() <= 1e-10 * largest, "{found} {expected}");
            }
            let least = rows.min(columns);
            let difference = dense.truncate(least).dense() - factors.truncate(least).dense();
            prop_assert!(difference.amax() <= 1e-10 * largest);
            let (left, right) = dense.vectors(least);
            for vectors in [left, right] {
                let gram = transposed_product(&vectors, &vectors);
                prop_assert!((gram - Matrix::identity(least, least)).amax() <= 1e-12);
            }
        }
    }

    #[test]
    fn signs_are_fixed() {
        let mut seed = 5;
        let a = random_low_rank(&mut seed, 20, 10, 3);
        let flipped = LowRank::new(-&a.up, -&a.down);
        let (left, right) = a.svd().vectors(3);
        let (other_left, other_right) = flipped.svd().vectors(3);
        assert!((left - other_left).amax() < 1e-12 && (right - other_right).amax() < 1e-12);
    }

    #[test]
    fn every_magnitude_comes_apart_alike() {
        let mut seed = 9;
        let plain = random_low_rank(&mut seed, 9, 7, 3);
        let expected = plain.svd();
        for (up, down) in
            [(1e-300, 1.0), (1e-160, 1e-160), (1e150, 1e150), (1e300, 1e-320), (1e-3, 1e300)]
        {
            let svd = LowRank::new(&plain.up * up, &plain.down * down).svd();
            // Subnormal factors have few digits.
            let digits = if down < 1e-307 { 1e-3 } else { 1e-12 };
            for (found, plain) in svd.singular_values().iter().zip(expected.singular_values()) {
                let wanted = plain * up * down;
                let least = 5e-324 / digits;
                assert!(
                    (found - wanted).abs() <= digits * wanted.max(least),
                    "{up:e} {down:e}: {found:e}"
                );
            }
            assert!(svd.truncate(3).up.iter().all(|value| value.is_finite()), "{up:e} {down:e}");
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bad in [f64::NAN, f64::INFINITY] {
            let mut matrix = LowRank::new(Matrix::identity(4, 2), Matrix::identity(2, 3));
            matrix.down[(1, 2)] = bad;
            let wide = LowRank::sum(4, 3, &[matrix.clone(), matrix.clone()]);
            for (matrix, rank) in [(matrix, 2), (wide, 3)] {
                let svd = matrix.svd();
                assert!(svd.singular_values().iter().all(|value| value.is_nan()));
                assert_eq!(svd.numerical_rank(), rank);
                assert!(svd.truncate(2).up.iter().any(|value| value.is_nan()));
            }
        }
    }

    #[test]
    fn zero_is_handled() {
        let zero = LowRank::new(Matrix::zeros(5, 2), Matrix::zeros(2, 4));
        assert_eq!(zero.svd().singular_values(), [0.0, 0.0]);
        assert_eq!(zero.svd().truncate(1).dense(), Matrix::zeros(5, 4));
        assert_eq!(LowRank::zero(3, 2).svd().singular_values().len(), 0);
    }
}
