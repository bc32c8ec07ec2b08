//! The weighted sum as PEFT's `cat` stores it: B side by side, wᵢ·sᵢ·A one under another
//! (peft `tuners/lora/model.py`, `add_weighted_adapter`,
//! <https://huggingface.co/docs/peft/developer_guides/model_merging>).

use super::params::LAMBDA;
use super::{Combined, Compat, Kind, Law, Method, Problem, Weighted, anything};
use crate::math::LowRank;

pub(super) static METHOD: Method = Method {
    name: "cat",
    aliases: &["concat"],
    summary: "the exact weighted sum, factors stacked as they are",
    source: "https://huggingface.co/docs/peft/developer_guides/model_merging",
    takes: &[LAMBDA],
    peers: &[Compat::Peft, Compat::Kohya],
    keeps_factors: true,
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
    let scaled = |input: &Weighted| {
        LowRank::new(input.factors.up.clone(), &input.factors.down * input.coefficient())
    };
    let parts: Vec<LowRank> = problem.inputs.iter().map(scaled).collect();
    Combined { factors: LowRank::sum(problem.rows, problem.columns, &parts), scale: 1.0 }
}
