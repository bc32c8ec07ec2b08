//! How much deltas write where another delta writes, module by module, summed over all of them.
//!
//! A delta Dᵢ = U·S·Vᵀ writes along the columns of U, along the k-th with the weight wₖ = sₖ / ‖S‖. What the others
//! write there is Σₖ wₖ²·‖uₖᵀ·Σⱼ Dⱼ‖², j ≠ i, which is ‖Dᵢᵀ·Σⱼ Dⱼ‖² / ‖Dᵢ‖²: products of factors say it, whatever
//! the bases that they are stored in. Spill is the root of its sum over modules, over ‖Dᵢ‖² of all modules.

use super::grams::Grams;
use super::low_rank::LowRank;
use super::matrix::{Matrix, product};

/// What deltas of several adapters write over each other, over the modules added so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Spill {
    /// ‖Dᵢ‖² over all modules.
    energies: Vec<f64>,
    /// What j alone writes where i does, at (i, j).
    pairs: Matrix,
    /// What all others together write where i does.
    together: Vec<f64>,
}

impl Spill {
    /// Of so many adapters, without a module.
    pub fn new(adapters: usize) -> Self {
        Self {
            energies: vec![0.0; adapters],
            pairs: Matrix::zeros(adapters, adapters),
            together: vec![0.0; adapters],
        }
    }

    /// One module: the weighted deltas (m × n) of the adapters that have it, by their numbers; O((m + n)·R²) for
    /// ranks that sum to R.
    ///
    /// # Panics
    /// If a number is not below that of the adapters, or shapes differ.
    #[track_caller]
    pub fn of_module(adapters: usize, deltas: &[(usize, LowRank)]) -> Self {
        // Nobody writes over a lone adapter.
        if adapters < 2 {
            return Self::new(adapters);
        }
        let (numbers, parts): (Vec<usize>, Vec<LowRank>) = deltas.iter().cloned().unzip();
        Self::of_grams(adapters, &numbers, &Grams::of(&parts))
    }

    /// One module, by the inner products of its weighted deltas' factors; O(R²·r) for an
    /// adapter of rank r.
    ///
    /// # Panics
    /// If a number is not below that of the adapters, or there are more deltas than numbers.
    #[track_caller]
    pub fn of_grams(adapters: usize, numbers: &[usize], grams: &Grams) -> Self {
        let mut spill = Self::new(adapters);
        if adapters < 2 {
            return spill;
        }
        let count = grams.count();
        for (i, &adapter) in numbers.iter().enumerate().take(count) {
            let energy = grams.inner(i, i).max(0.0);
            spill.energies[adapter] += energy;
            if energy == 0.0 {
                continue;
            }
            // Block j: Bⱼᵀ·Bᵢ, of all j but i.
            let mut written = grams.outputs_with(i);
            let (start, rank) = grams.place(i);
            written.rows_mut(start, rank).fill(0.0);
            // ‖Dᵢᵀ·Σⱼ Dⱼ‖² / ‖Dᵢ‖² = Σⱼ ⟨Bⱼᵀ·Bᵢ·(Aᵢ·Aᵢᵀ), Σₗ Aⱼ·Aₗᵀ·(Bₗᵀ·Bᵢ)⟩ / ‖Dᵢ‖², j and l ≠ i.
            let along = product(&written, &(grams.inputs(i, i) / energy));
            let together = grams.inputs_times(&written).component_mul(&along).sum();
            for j in (0..count).filter(|j| *j != i) {
                let (start, rank) = grams.place(j);
                let both = product(&grams.inputs(j, j), &written.rows(start, rank).clone_owned())
                    .component_mul(&along.rows(start, rank))
                    .sum();
                spill.pairs[(adapter, numbers[j])] += both.max(0.0);
            }
            spill.together[adapter] += together.max(0.0);
        }
        spill
    }

    /// Adds the sums of other modules.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        let add =
            |all: &mut [f64], more: &[f64]| all.iter_mut().zip(more).for_each(|(a, b)| *a += b);
        add(&mut self.energies, &other.energies);
        add(&mut self.together, &other.together);
        self.pairs += &other.pairs;
        self
    }

    /// What the others together write where an adapter does, relative to the adapter: 0 is nothing. `None` of an
    /// adapter that writes nothing itself, or whose numbers are out of reach of f64.
    pub fn on(&self, adapter: usize) -> Option<f64> {
        self.relative(*self.together.get(adapter)?, adapter)
    }

    /// The same of another adapter alone.
    pub fn between(&self, adapter: usize, other: usize) -> Option<f64> {
        self.relative(*self.pairs.get((adapter, other))?, adapter)
    }

    /// The mean over all adapters that write something.
    pub fn mean(&self) -> Option<f64> {
        let known: Vec<f64> = (0..self.energies.len()).filter_map(|at| self.on(at)).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }

    fn relative(&self, written: f64, adapter: usize) -> Option<f64> {
        let energy = *self.energies.get(adapter)?;
        let spill = (written / energy).sqrt();
        (energy > 0.0 && spill.is_finite()).then_some(spill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix of numbers between −1 and 1.
    fn numbers(rows: usize, columns: usize, seed: usize) -> Matrix {
        let value = |row: usize, column: usize| {
            let at = row * 31 + column * 17 + seed * 101;
            ((at * at + 7 * at) % 211) as f64 / 105.5 - 1.0
        };
        Matrix::from_fn(rows, columns, value)
    }

    fn delta(seed: usize, rank: usize) -> LowRank {
        LowRank::new(numbers(9, rank, seed), numbers(rank, 7, seed + 50))
    }

    /// The definition, on dense matrices.
    fn dense(own: &Matrix, others: &Matrix) -> f64 {
        let svd = own.clone().svd(true, false);
        let norm = own.norm_squared();
        let u = svd.u.unwrap_or_default();
        let parts = svd.singular_values.iter().enumerate();
        parts.map(|(k, s)| s * s / norm * (u.column(k).transpose() * others).norm_squared()).sum()
    }

    #[test]
    fn as_defined_on_dense_matrices() {
        let modules = [
            vec![(0, delta(1, 3)), (1, delta(2, 2)), (2, delta(3, 4))],
            vec![(0, delta(4, 1)), (2, delta(5, 2))],
        ];
        let mut spill = Spill::new(3);
        for module in &modules {
            spill = spill.plus(&Spill::of_module(3, module));
        }
        for i in 0..3 {
            let (mut together, mut energy) = (0.0, 0.0);
            let mut alone = [0.0; 3];
            for module in &modules {
                let Some((_, own)) = module.iter().find(|(at, _)| *at == i) else { continue };
                energy += own.dense().norm_squared();
                let mut others = Matrix::zeros(9, 7);
                for (j, other) in module.iter().filter(|(j, _)| *j != i) {
                    others += other.dense();
                    alone[*j] += dense(&own.dense(), &other.dense());
                }
                together += dense(&own.dense(), &others);
            }
            let near = |found: Option<f64>, sum: f64| {
                let expected = (sum / energy).sqrt();
                assert!(
                    (found.unwrap_or(-1.0) - expected).abs() < 1e-12,
                    "{i}: {found:?} {expected}"
                );
            };
            near(spill.on(i), together);
            for j in (0..3).filter(|j| *j != i) {
                near(spill.between(i, j), alone[j]);
            }
        }
    }

    #[test]
    fn factors_in_another_basis_spill_the_same() {
        let gauge = numbers(3, 3, 9) + Matrix::identity(3, 3) * 2.0;
        let inverse = gauge.clone().try_inverse().unwrap_or_default();
        let plain = delta(1, 3);
        let turned = LowRank::new(&plain.up * gauge, inverse * &plain.down);
        let spill = |delta: LowRank| Spill::of_module(2, &[(0, delta), (1, self::delta(2, 2))]);
        let (a, b) = (spill(plain), spill(turned));
        for at in 0..2 {
            let difference = a.on(at).unwrap_or(-1.0) - b.on(at).unwrap_or(1.0);
            assert!(difference.abs() < 1e-12, "{difference}");
        }
    }

    #[test]
    fn what_writes_nothing_has_no_spill() {
        let zero = LowRank::new(Matrix::zeros(9, 2), numbers(2, 7, 1));
        let spill = Spill::of_module(2, &[(0, zero), (1, delta(2, 2))]);
        assert_eq!((spill.on(0), spill.on(1)), (None, Some(0.0)));
        assert_eq!((spill.mean(), Spill::new(2).mean()), (Some(0.0), None));
    }
}
