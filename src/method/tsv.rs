//! TSV-Merge: the deltas' singular vectors, made orthogonal to each other before they are summed
//! (Gargiulo et al. 2024, <https://arxiv.org/abs/2412.00081>).
//!
//! With Û = [U₁ … U_T], V̂ likewise and Σ̂ all singular values, the result is Û⊥·Σ̂·V̂⊥ᵀ, where ⊥ is the
//! nearest matrix with orthonormal columns. Only directions that the deltas really have take part, so
//! nothing depends on how a library fills up a basis; directions that deltas share come in once.

use super::params::LAMBDA;
use super::{Combined, Kind, Law, Method, Problem, anything};
use crate::math::linalg::matrix::product;
use crate::math::{LowRank, Matrix};

pub(super) static METHOD: Method = Method {
    name: "tsv",
    aliases: &["tsv-merge", "tsvm"],
    summary: "sum of the deltas after their singular vectors were made orthogonal to each other",
    source: "https://arxiv.org/abs/2412.00081",
    takes: &[LAMBDA],
    peers: &[],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Permutation, Law::Scale],
    check: anything,
    kind: Kind::Core(combine),
};

/// Directions this much shorter than the longest are those of others.
const SHARED: f64 = 1e-4;

fn combine(problem: &Problem) -> Combined {
    let (mut left, mut right, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for delta in problem.deltas() {
        let svd = delta.svd();
        let rank = svd.numerical_rank();
        let (u, v) = svd.vectors(rank);
        values.extend_from_slice(&svd.singular_values()[..rank]);
        left.push(u);
        right.push(v);
    }
    let (left, right) = (orthogonalised(problem.rows, &left), orthogonalised(problem.columns, &right));
    let (mut up, mut down) = (left, right.transpose());
    for (at, value) in values.iter().enumerate() {
        up.column_mut(at).scale_mut(value.sqrt());
        down.row_mut(at).scale_mut(value.sqrt());
    }
    Combined { factors: LowRank::new(up, down), scale: 1.0 }
}

/// The polar factor of the blocks side by side.
pub(super) fn orthogonalised(rows: usize, blocks: &[Matrix]) -> Matrix {
    let columns = blocks.iter().map(Matrix::ncols).sum();
    let mut all = Matrix::zeros(rows, columns);
    let mut at = 0;
    for block in blocks {
        all.columns_mut(at, block.ncols()).copy_from(block);
        at += block.ncols();
    }
    let svd = LowRank::new(all, Matrix::identity(columns, columns)).svd();
    let largest = svd.singular_values().first().copied().unwrap_or(0.0);
    let distinct = svd.singular_values().iter().filter(|value| **value > SHARED * largest).count();
    let (u, v) = svd.vectors(distinct);
    product(&u, &v.transpose())
}
