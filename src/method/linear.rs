//! The weighted sum of the deltas, exactly, by stacking: Σ wᵢ·sᵢ·Bᵢ·Aᵢ. Task arithmetic (Ilharco et
//! al. 2022, <https://arxiv.org/abs/2212.04089>).

use super::{Combined, Law, Method, Weighted, anything};
use crate::math::LowRank;

pub(super) static METHOD: Method = Method {
    name: "linear",
    aliases: &["svd", "task-arithmetic"],
    summary: "the exact weighted sum of the deltas",
    source: "https://arxiv.org/abs/2212.04089",
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Permutation, Law::WeightedSum],
    check: anything,
    combine,
};

fn combine(rows: usize, columns: usize, inputs: &[Weighted]) -> Combined {
    let parts: Vec<LowRank> = inputs.iter().map(Weighted::delta).collect();
    Combined { factors: LowRank::sum(rows, columns, &parts), scale: 1.0 }
}
