//! Inner products of the factors of several deltas, from which norms of sums and products of the deltas follow.

use super::low_rank::LowRank;
use super::matrix::{Matrix, product, product_transposed, transposed_product};

/// Inner products of deltas' factors, which stand one after another: blocks (i, j) of deltas i and j.
#[derive(Debug, Clone, PartialEq)]
pub struct Grams {
    /// Where the blocks begin, and where the last one ends: R.
    starts: Vec<usize>,
    /// Bᵢᵀ·Bⱼ, R × R.
    outputs: Matrix,
    /// Aᵢ·Aⱼᵀ, R × R.
    inputs: Matrix,
}

impl Grams {
    /// Of deltas whose factors are the first of a stack (m × n), by their ranks; O((m + n)·R²). What an SVD has as
    /// its coordinates says the same as the stack, in O(R³).
    ///
    /// # Panics
    /// If the stack has a lower rank than they have together.
    #[track_caller]
    pub fn of_stack(stack: &LowRank, ranks: &[usize]) -> Self {
        let mut starts = vec![0];
        let mut end = 0;
        for rank in ranks {
            end += rank;
            starts.push(end);
        }
        assert!(end <= stack.rank(), "ranks of a stack");
        let outputs = transposed_product(&stack.up, &stack.up);
        let inputs = product_transposed(&stack.down, &stack.down);
        Self {
            starts,
            outputs: outputs.resize(end, end, 0.0),
            inputs: inputs.resize(end, end, 0.0),
        }
    }

    /// Of deltas of m × n.
    ///
    /// # Panics
    /// If their shapes differ.
    #[track_caller]
    pub fn of(deltas: &[LowRank]) -> Self {
        let Some(first) = deltas.first() else { return Self::of_stack(&LowRank::zero(0, 0), &[]) };
        let ranks: Vec<usize> = deltas.iter().map(LowRank::rank).collect();
        Self::of_stack(&LowRank::sum(first.rows(), first.columns(), deltas), &ranks)
    }

    /// The number of deltas.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Of the same deltas, each times a weight.
    ///
    /// # Panics
    /// If there are fewer weights than deltas.
    #[must_use]
    #[track_caller]
    pub fn weighted(mut self, weights: &[f64]) -> Self {
        for (at, weight) in weights.iter().enumerate().take(self.count()) {
            let (start, rank) = self.place(at);
            self.outputs.columns_mut(start, rank).scale_mut(*weight);
            self.outputs.rows_mut(start, rank).scale_mut(*weight);
        }
        self
    }

    /// ⟨Dᵢ, Dⱼ⟩ in the Frobenius sense.
    ///
    /// # Panics
    /// If there is no such delta.
    #[track_caller]
    pub fn inner(&self, i: usize, j: usize) -> f64 {
        self.block(&self.outputs, i, j).component_mul(&self.inputs(i, j)).sum()
    }

    /// Aᵢ·Aⱼᵀ.
    #[track_caller]
    pub(super) fn inputs(&self, i: usize, j: usize) -> Matrix {
        self.block(&self.inputs, i, j)
    }

    /// Σₗ Aⱼ·Aₗᵀ·xₗ of all j, for x: R × k.
    #[track_caller]
    pub(super) fn inputs_times(&self, x: &Matrix) -> Matrix {
        product(&self.inputs, x)
    }

    /// Bⱼᵀ·Bᵢ of all j, R × rank of i.
    #[track_caller]
    pub(super) fn outputs_with(&self, i: usize) -> Matrix {
        let (start, rank) = self.place(i);
        self.outputs.columns(start, rank).clone_owned()
    }

    /// Block (i, j) of an R × R matrix.
    #[track_caller]
    fn block(&self, matrix: &Matrix, i: usize, j: usize) -> Matrix {
        let ((row, rows), (column, columns)) = (self.place(i), self.place(j));
        matrix.view((row, column), (rows, columns)).clone_owned()
    }

    /// Where the block of a delta begins, and its rank.
    #[track_caller]
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        (self.starts[at], self.starts[at + 1] - self.starts[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(seed: usize, rank: usize) -> LowRank {
        let value = |row: usize, column: usize| {
            let at = row * 31 + column * 17 + seed * 101;
            ((at * at + 7 * at) % 211) as f64 / 105.5 - 1.0
        };
        let down = Matrix::from_fn(rank, 7, |row, column| value(row + 3, column + 50));
        LowRank::new(Matrix::from_fn(9, rank, value), down)
    }

    #[test]
    fn the_coordinates_of_an_svd_say_the_same_as_the_factors() {
        // R is above, at and below the sizes; magnitudes are far from 1.
        for (ranks, scale) in [([3, 2, 1], 1.0), ([3, 2, 4], 1e-60), ([6, 5, 4], 1e60)] {
            let deltas: Vec<LowRank> = ranks
                .iter()
                .enumerate()
                .map(|(at, rank)| delta(at + 1, *rank))
                .map(|delta| LowRank::new(delta.up * scale, delta.down / scale))
                .collect();
            let stack = LowRank::sum(9, 7, &deltas);
            let (plain, found) =
                (Grams::of(&deltas), Grams::of_stack(&stack.svd().coordinates(&stack), &ranks));
            for i in 0..3 {
                for j in 0..3 {
                    let expected = (deltas[i].dense().transpose() * deltas[j].dense()).trace();
                    for grams in [&plain, &found] {
                        assert!((grams.inner(i, j) - expected).abs() < 1e-11, "{ranks:?}: {i} {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn weights_go_into_both_sides_of_inner_products() {
        let deltas = [delta(1, 2), delta(2, 3)];
        let weights = [0.0, -2.0];
        let found = Grams::of(&deltas).weighted(&weights);
        for i in 0..2 {
            for j in 0..2 {
                let expected = deltas[i].inner(&deltas[j]) * weights[i] * weights[j];
                assert!((found.inner(i, j) - expected).abs() < 1e-12);
            }
        }
    }
}
