//! kohya's `merge_lora.py --concat`, for parity: factors are stacked, each times ratio·√(αᵢ/α₁), and
//! alpha stays the first one's while the rank grows
//! (<https://github.com/kohya-ss/sd-scripts/blob/main/networks/merge_lora.py>).

use super::params::LAMBDA;
use super::{Combined, Kind, Method, Problem, Weighted, positive_scales};
use crate::math::LowRank;

pub(super) static METHOD: Method = Method {
    name: "kohya-cat",
    aliases: &[],
    summary: "kohya's concatenation, weaker than the sum: for parity only",
    source: "https://github.com/kohya-ss/sd-scripts/blob/main/networks/merge_lora.py",
    takes: &[LAMBDA],
    peers: &[],
    keeps_factors: true,
    laws: &[],
    check: positive_scales,
    kind: Kind::Factors(combine),
};

fn combine(problem: &Problem) -> Combined {
    let alpha = |input: &Weighted| input.scale * input.factors.rank() as f64;
    let base = problem.inputs.first().map_or(1.0, alpha);
    let scaled = |input: &Weighted| {
        let share = (alpha(input) / base).sqrt() * input.weight;
        LowRank::new(&input.factors.up * share.abs(), &input.factors.down * share)
    };
    let parts: Vec<LowRank> = problem.inputs.iter().map(scaled).collect();
    let factors = LowRank::sum(problem.rows, problem.columns, &parts);
    let scale = base / factors.rank().max(1) as f64;
    Combined { factors, scale }
}
