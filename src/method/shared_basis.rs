//! Compress, then merge: one pair of bases of the output's rank for all adapters, each adapter projected
//! on it, and the projections summed. The bases are fitted to adapters brought to one length first, so
//! that a loud adapter does not own them and a quiet one is not cut away.
//!
//! With Δ̂ᵢ = wᵢΔᵢ/‖wᵢΔᵢ‖, the bases P and Q of rank k maximise Σ ‖Pᵀ·Δ̂ᵢ·Q‖²: the leading left and right
//! singular vectors of [Δ̂₁ … Δ̂_T] and of their stack, then a few alternating rounds (Ye 2005, "Generalized
//! low rank approximations of matrices", <https://doi.org/10.1007/s10994-005-3561-6>). The result is
//! P·(Σ Pᵀ·wᵢΔᵢ·Q)·Qᵀ. At a rank that holds all adapters it is the weighted sum itself.

use super::params::LAMBDA;
use super::{Combined, Kind, Law, Method, Problem, anything};
use crate::math::linalg::matrix::{product, transposed_product};
use crate::math::linalg::low_rank::orthonormal_basis;
use crate::math::{LowRank, Matrix};

pub(super) static METHOD: Method = Method {
    name: "shared-basis",
    aliases: &["compress-then-merge"],
    summary: "the weighted sum in one basis of the output's rank that serves all adapters alike",
    source: "https://doi.org/10.1007/s10994-005-3561-6",
    takes: &[LAMBDA],
    peers: &[],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Permutation, Law::Scale, Law::WeightedSum],
    check: anything,
    kind: Kind::Core(combine),
};

/// Alternating rounds; the first few gain nearly all there is.
const ROUNDS: usize = 8;

fn combine(problem: &Problem) -> Combined {
    let deltas = problem.deltas();
    let sum = LowRank::sum(problem.rows, problem.columns, &deltas);
    let rank = problem.rank.unwrap_or(usize::MAX);
    if rank >= sum.rank().min(problem.rows).min(problem.columns) {
        return Combined { factors: sum, scale: 1.0 };
    }
    let mut balanced = Vec::new();
    for delta in &deltas {
        let norm = delta.squared_norm().sqrt();
        if norm > 0.0 {
            balanced.push(LowRank::new(delta.up.clone(), &delta.down / norm));
        }
    }
    // Orthonormal bases of all outputs and inputs; in them every delta is a small core.
    let (left, right) = bases(problem, &balanced);
    let core = |delta: &LowRank| {
        product(&transposed_product(&left, &delta.up), &product(&delta.down, &right))
    };
    let cores: Vec<Matrix> = balanced.iter().map(core).collect();
    let (p, q) = shared(&cores, (left.ncols(), right.ncols()), rank);
    let merged = deltas.iter().map(core).fold(Matrix::zeros(left.ncols(), right.ncols()), |a, b| a + b);
    let small = product(&transposed_product(&p, &merged), &q);
    let up = product(&product(&left, &p), &small);
    Combined { factors: LowRank::new(up, product(&right, &q).transpose()), scale: 1.0 }
}

/// Orthonormal bases of what all deltas write, and of what they read.
fn bases(problem: &Problem, deltas: &[LowRank]) -> (Matrix, Matrix) {
    let all = LowRank::sum(problem.rows, problem.columns, deltas);
    (orthonormal_basis(all.up), orthonormal_basis(all.down.transpose()))
}

/// P and Q with `rank` columns that maximise Σ ‖PᵀMᵢQ‖².
fn shared(cores: &[Matrix], (rows, columns): (usize, usize), rank: usize) -> (Matrix, Matrix) {
    let leading = |gram: Matrix| {
        let width = gram.ncols();
        LowRank::new(gram, Matrix::identity(width, width)).svd().vectors(rank).0
    };
    let mut q = Matrix::identity(columns, columns);
    let mut p = Matrix::identity(rows, rows);
    for _ in 0..ROUNDS {
        let seen = |m: &Matrix, q: &Matrix| {
            let half = product(m, q);
            product(&half, &half.transpose())
        };
        p = leading(cores.iter().map(|m| seen(m, &q)).fold(Matrix::zeros(rows, rows), |a, b| a + b));
        let turned = cores.iter().map(|m| seen(&m.transpose(), &p));
        q = leading(turned.fold(Matrix::zeros(columns, columns), |a, b| a + b));
    }
    (p, q)
}
