//! Isotropic merging in common and task-specific subspaces: the sum's leading directions, each delta's own
//! ones outside of them, all made orthogonal to each other and given the mean of their singular values
//! (Marczak et al. 2025, <https://arxiv.org/abs/2502.04959>, Iso-CTS; `iso_cts` of its repository
//! danielm1405/iso-merging).
//!
//! Of R directions, ⌊R · common⌋ are the sum's; the others go to the T deltas in equal parts, the nearest
//! whole number each, and what is left over to the sum again. A delta's own are the first ones of
//! (I − U·Uᵀ)·Δ, U the sum's. Theirs counts R over all min(m, n) directions; here it is the sum's own rank, as in
//! `iso-c`, so that none is one that no adapter has.

use super::params::{COMMON, LAMBDA};
use super::tsv::orthogonalised;
use super::{Combined, Kind, Law, Method, Problem, anything};
use crate::math::linalg::matrix::{product, transposed_product};
use crate::math::{LowRank, Matrix};

pub(super) static METHOD: Method = Method {
    name: "iso-cts",
    aliases: &[],
    summary: "the sum's leading directions and each delta's own, all singular values made equal",
    source: "https://arxiv.org/abs/2502.04959",
    takes: &[COMMON, LAMBDA],
    peers: &[],
    keeps_factors: false,
    laws: &[Law::Permutation, Law::Scale],
    check: anything,
    kind: Kind::Core(combine),
};

/// What is left of a delta outside of the common directions counts down to this share of the delta.
const LEFT: f64 = 1e-6;

fn combine(problem: &Problem) -> Combined {
    let deltas = problem.deltas();
    let sum = LowRank::sum(problem.rows, problem.columns, &deltas).svd();
    let rank = sum.numerical_rank();
    let longest = |delta: &LowRank| delta.svd().singular_values().first().copied().unwrap_or(0.0);
    let mut parts: Vec<(&LowRank, f64)> =
        deltas.iter().map(|delta| (delta, longest(delta))).collect();
    parts.retain(|(_, longest)| *longest > 0.0);
    let (common, individual) = shares(rank, parts.len(), problem.settings.number(&COMMON));
    let (u, v) = sum.vectors(common);
    let mut values = sum.singular_values()[..common].to_vec();
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for (delta, longest) in parts {
        let inside = product(&u, &transposed_product(&u, &delta.up));
        let outside = LowRank::new(&delta.up - inside, delta.down.clone()).svd();
        let count = outside.singular_values().iter().filter(|value| **value > LEFT * longest).count();
        let (own_left, own_right) = outside.vectors(individual.min(count));
        values.extend_from_slice(&outside.singular_values()[..individual.min(count)]);
        left.push(own_left);
        right.push(own_right);
    }
    left.push(u);
    right.push(v);
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let share = mean.sqrt();
    let up: Matrix = orthogonalised(problem.rows, &left) * share;
    let down = orthogonalised(problem.columns, &right).transpose() * share;
    Combined { factors: LowRank::new(up, down), scale: 1.0 }
}

/// How many directions are the sum's, and how many each delta's own.
fn shares(rank: usize, deltas: usize, common: f64) -> (usize, usize) {
    if deltas == 0 {
        return (rank, 0);
    }
    let others = rank - (rank as f64 * common) as usize;
    let individual = (others as f64 / deltas as f64).round_ties_even() as usize;
    let individual = individual.min(rank / deltas);
    (rank - deltas * individual, individual)
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn directions_are_shared_out() {
        assert_eq!(shares(20, 2, 0.8), (16, 2));
        assert_eq!(shares(16, 3, 0.8), (13, 1));
        assert_eq!(shares(2, 3, 0.3), (2, 0));
        assert_eq!(shares(8, 4, 0.0), (0, 2));
        assert_eq!(shares(8, 4, 1.0), (8, 0));
        assert_eq!(shares(5, 0, 0.8), (5, 0));
    }
}
