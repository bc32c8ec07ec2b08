//! STAR: each delta is cut to the fewest singular values that hold a share η of its nuclear norm, and
//! these are scaled up to the whole of it, before the deltas are summed (Lee et al. 2025,
//! <https://arxiv.org/abs/2502.10339>; IBM/STAR `merger/STAR.py`, whose `eta` is in percent, 40 unless
//! said otherwise). The paper averages what is left of T deltas: weights of 1/T.

use super::params::{ETA, LAMBDA};
use super::{Combined, Kind, Law, Method, Problem, anything};
use crate::math::LowRank;

pub(super) static METHOD: Method = Method {
    name: "star",
    aliases: &[],
    summary: "the weighted sum of the deltas' leading directions, scaled up to their nuclear norms",
    source: "https://arxiv.org/abs/2502.10339",
    takes: &[ETA, LAMBDA],
    peers: &[],
    keeps_factors: false,
    laws: &[Law::Permutation, Law::Scale],
    check: anything,
    kind: Kind::Core(combine),
};

fn combine(problem: &Problem) -> Combined {
    let eta = problem.settings.number(&ETA);
    let cut = |delta: LowRank| {
        let svd = delta.svd();
        let values = svd.singular_values();
        let whole: f64 = values.iter().sum();
        let mut held = 0.0;
        let reaches = |value: &f64| {
            held += value;
            held >= eta * whole * (1.0 - 1e-14)
        };
        let rank = values.iter().position(reaches).map_or(values.len(), |at| at + 1);
        let gain = if held > 0.0 { whole / held } else { 1.0 };
        let LowRank { up, down } = svd.truncate(rank);
        LowRank::new(up, down * gain)
    };
    let parts: Vec<LowRank> = problem.deltas().into_iter().map(cut).collect();
    Combined { factors: LowRank::sum(problem.rows, problem.columns, &parts), scale: 1.0 }
}
