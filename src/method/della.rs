//! DELLA: elements are dropped at random, with a chance that falls with their rank in their row, and the
//! others divided by their own chance; then signs are elected and what agrees is averaged (Deep et al.
//! 2024, <https://arxiv.org/abs/2406.11617>).
//!
//! mergekit makes up for what is dropped by the deltas' sums of magnitudes instead.

use super::elementwise::{Blend, Elementwise, Trim};
use super::params::{DENSITY, EPSILON, LAMBDA, MAJORITY_SIGN, REDUCE, SEED};
use super::{Compat, Kind, Law, Method, Refusal, Sketch};

pub(super) static METHOD: Method = Method {
    name: "della",
    aliases: &[],
    summary: "drop elements at random, small ones more often, elect a sign, average those that agree",
    source: "https://arxiv.org/abs/2406.11617",
    takes: &[DENSITY, EPSILON, MAJORITY_SIGN, REDUCE, LAMBDA, SEED],
    peers: &[Compat::Mergekit],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Scale],
    check,
    kind: Kind::Elementwise(Elementwise { trim: Trim::RandomByRank, blend: Blend::Elect }),
};

/// Chances must stay inside (0, 1), but for adapters that keep everything.
pub(super) fn check(sketch: &Sketch) -> Result<(), Refusal> {
    for adapter in 0..sketch.adapters {
        let epsilon = sketch.settings.number_of(&EPSILON, adapter);
        let density = sketch.settings.number_of(&DENSITY, adapter);
        if density < 1.0 && (density + epsilon >= 1.0 || density - epsilon <= 0.0) {
            return Err(Refusal::NoRoom { density, epsilon });
        }
    }
    Ok(())
}
