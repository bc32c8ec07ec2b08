//! Post-hoc average over checkpoints of one run, oldest first: mₜ = β·mₜ₋₁ + (1 − β)·Δₜ, from m₁ = Δ₁
//! (Karras et al. 2023, <https://arxiv.org/abs/2312.02696>, has the idea; the recursion is that of
//! sd-lora-tools, which averages A and B apart, and so another adapter).

use super::params::{BETA, LAMBDA};
use super::{Kind, Law, Method, Problem, anything};
use crate::math::Matrix;

pub(super) static METHOD: Method = Method {
    name: "ema",
    aliases: &["post-hoc-ema"],
    summary: "an average over checkpoints of one run that forgets the oldest",
    source: "https://arxiv.org/abs/2312.02696",
    takes: &[BETA, LAMBDA],
    peers: &[],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Scale],
    check: anything,
    kind: Kind::Gram(coefficients),
};

fn coefficients(_gram: &Matrix, problem: &Problem) -> Vec<f64> {
    let beta = problem.settings.number(&BETA);
    let last = problem.weights.len() - 1;
    let of = |adapter: usize| {
        let decay = beta.powf((last - adapter) as f64);
        if adapter == 0 { decay } else { (1.0 - beta) * decay }
    };
    problem.inputs.iter().map(|input| of(input.adapter)).collect()
}
