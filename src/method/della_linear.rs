//! DELLA's random dropping by magnitude (Deep et al. 2024, <https://arxiv.org/abs/2406.11617>) without an
//! election: what is left is summed, as mergekit's `della_linear` (`merge_methods/registry.py`) has it.
//!
//! mergekit makes up for what is dropped by the deltas' sums of magnitudes instead.

use super::della::check;
use super::elementwise::{Blend, Elementwise, Trim};
use super::params::{DENSITY, EPSILON, LAMBDA, SEED};
use super::{Compat, Kind, Law, Method};

pub(super) static METHOD: Method = Method {
    name: "della-linear",
    aliases: &[],
    summary: "drop elements at random, small ones more often, scale up the rest, sum",
    source: "https://arxiv.org/abs/2406.11617",
    takes: &[DENSITY, EPSILON, LAMBDA, SEED],
    peers: &[Compat::Mergekit],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Scale],
    check,
    kind: Kind::Elementwise(Elementwise { trim: Trim::RandomByRank, blend: Blend::Sum }),
};
