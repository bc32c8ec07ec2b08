//! PEFT's `linear`, for parity: A and B are summed apart, √|w·s| on each and the sign on A, so that
//! cross terms Bᵢ·Aⱼ come in (peft `tuners/lora/model.py`, `add_weighted_adapter`,
//! <https://github.com/huggingface/peft/issues/3004>).

use super::{Combined, Law, Method, Weighted, add_factors, equal_ranks};

pub(super) static METHOD: Method = Method {
    name: "peft-linear",
    aliases: &[],
    summary: "PEFT's sum of the factors, with its cross terms: for parity only",
    source: "https://github.com/huggingface/peft/issues/3004",
    keeps_factors: true,
    laws: &[Law::Identity, Law::Negation, Law::Permutation],
    check: equal_ranks,
    combine,
};

fn combine(_rows: usize, _columns: usize, inputs: &[Weighted]) -> Combined {
    let factors = add_factors(inputs, |input| {
        let coefficient = input.coefficient();
        let share = coefficient.abs().sqrt();
        (share, share * coefficient.signum())
    });
    Combined { factors, scale: 1.0 }
}
