//! kohya's `merge_lora.py`, for parity: factors are summed apart, each times ratio·√(αᵢ/α₁), so that
//! the ratio acts squared and cross terms come in
//! (<https://github.com/kohya-ss/sd-scripts/issues/868>).

use super::{Combined, Law, Method, Refusal, Sketch, Weighted, add_factors, equal_ranks, positive_scales};

pub(super) static METHOD: Method = Method {
    name: "kohya-linear",
    aliases: &[],
    summary: "kohya's sum of the factors, its ratios squared: for parity only",
    source: "https://github.com/kohya-ss/sd-scripts/issues/868",
    keeps_factors: true,
    laws: &[Law::Identity],
    check,
    combine,
};

fn check(inputs: &[Sketch]) -> Result<(), Refusal> {
    equal_ranks(inputs).and_then(|()| positive_scales(inputs))
}

fn combine(_rows: usize, _columns: usize, inputs: &[Weighted]) -> Combined {
    let base = inputs.first().map_or(1.0, |input| input.scale);
    let factors = add_factors(inputs, |input| {
        let share = (input.scale / base).sqrt() * input.weight;
        (share.abs(), share)
    });
    Combined { factors, scale: base }
}
