//! The weighted sum of the deltas, exactly, by stacking: Σ wᵢ·sᵢ·Bᵢ·Aᵢ. Task arithmetic (Ilharco et
//! al. 2022, <https://arxiv.org/abs/2212.04089>).

use super::params::LAMBDA;
use super::{Combined, Compat, Kind, Law, Method, Problem, anything};

pub(super) static METHOD: Method = Method {
    name: "linear",
    aliases: &["svd", "task-arithmetic"],
    summary: "the exact weighted sum of the deltas",
    source: "https://arxiv.org/abs/2212.04089",
    takes: &[LAMBDA],
    peers: &[Compat::Peft, Compat::Kohya, Compat::Mergekit],
    keeps_factors: false,
    laws: &[
        Law::Identity,
        Law::Negation,
        Law::Permutation,
        Law::Scale,
        Law::WeightedSum,
        Law::Stack,
    ],
    check: anything,
    kind: Kind::Factors(combine),
};

fn combine(problem: &Problem) -> Combined {
    Combined { factors: problem.sum(), scale: 1.0 }
}
