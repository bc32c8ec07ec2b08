//! Isotropic merging in the common subspace: the weighted sum with all its singular values replaced by
//! their mean (Marczak et al. 2025, <https://arxiv.org/abs/2502.04959>, Iso-C).
//!
//! The mean is over the sum's own rank. Over all min(m, n) values, most of them 0, it would hand energy to
//! directions that no adapter has and every library chooses for itself.

use super::params::LAMBDA;
use super::{Combined, Kind, Law, Method, Problem, anything};
use crate::math::LowRank;

pub(super) static METHOD: Method = Method {
    name: "iso-c",
    aliases: &["iso"],
    summary: "the weighted sum with all singular values made equal",
    source: "https://arxiv.org/abs/2502.04959",
    takes: &[LAMBDA],
    peers: &[],
    keeps_factors: false,
    laws: &[Law::Permutation, Law::Scale],
    check: anything,
    kind: Kind::Core(combine),
};

fn combine(problem: &Problem) -> Combined {
    let svd = LowRank::sum(problem.rows, problem.columns, &problem.deltas()).svd();
    let rank = svd.numerical_rank();
    let (up, right) = svd.vectors(rank);
    let mean = svd.singular_values().iter().take(rank).sum::<f64>() / rank.max(1) as f64;
    let share = mean.sqrt();
    let factors = LowRank::new(up * share, right.transpose() * share);
    Combined { factors, scale: 1.0 }
}
