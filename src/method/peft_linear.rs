//! PEFT's `linear`, for parity: A and B are summed apart, √|w·s| on each and the sign on A, so that
//! cross terms Bᵢ·Aⱼ come in (peft `tuners/lora/model.py`, `add_weighted_adapter`,
//! <https://github.com/huggingface/peft/issues/3004>).

use super::params::LAMBDA;
use super::{Combined, Kind, Law, Method, Problem, add_factors, equal_ranks};

pub(super) static METHOD: Method = Method {
    name: "peft-linear",
    aliases: &[],
    summary: "PEFT's sum of the factors, with its cross terms: for parity only",
    source: "https://github.com/huggingface/peft/issues/3004",
    takes: &[LAMBDA],
    peers: &[],
    keeps_factors: true,
    laws: &[Law::Identity, Law::Negation, Law::Permutation],
    check: equal_ranks,
    kind: Kind::Factors(combine),
};

fn combine(problem: &Problem) -> Combined {
    let factors = add_factors(problem.inputs, |input| {
        let coefficient = input.coefficient();
        let share = coefficient.abs().sqrt();
        (share, share * coefficient.signum())
    });
    Combined { factors, scale: 1.0 }
}
