//! kohya's `merge_lora.py`, for parity: factors are summed apart, each times ratio·√(αᵢ/α₁), so that
//! the ratio acts squared and cross terms come in
//! (<https://github.com/kohya-ss/sd-scripts/issues/868>).

use super::params::LAMBDA;
use super::{Combined, Kind, Law, Method, Problem, Refusal, Sketch, add_factors, equal_ranks, positive_scales};

pub(super) static METHOD: Method = Method {
    name: "kohya-linear",
    aliases: &[],
    summary: "kohya's sum of the factors, its ratios squared: for parity only",
    source: "https://github.com/kohya-ss/sd-scripts/issues/868",
    takes: &[LAMBDA],
    peers: &[],
    keeps_factors: true,
    laws: &[Law::Identity],
    check,
    kind: Kind::Factors(combine),
};

fn check(sketch: &Sketch) -> Result<(), Refusal> {
    equal_ranks(sketch).and_then(|()| positive_scales(sketch))
}

fn combine(problem: &Problem) -> Combined {
    let base = problem.inputs.first().map_or(1.0, |input| input.scale);
    let factors = add_factors(problem.inputs, |input| {
        let share = (input.scale / base).sqrt() * input.weight;
        (share.abs(), share)
    });
    Combined { factors, scale: base }
}
