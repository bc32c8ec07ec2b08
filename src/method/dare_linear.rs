//! DARE: each element of each delta is dropped with a chance of 1 − density and the others are divided by
//! density, so that the expected sum stays (Yu et al. 2023, <https://arxiv.org/abs/2311.03099>).
//!
//! mergekit makes up for what is dropped by the deltas' sums of magnitudes instead.

use super::elementwise::{Blend, Elementwise, Trim};
use super::params::{DENSITY, LAMBDA, SEED};
use super::{Compat, Kind, Law, Method, anything};

pub(super) static METHOD: Method = Method {
    name: "dare-linear",
    aliases: &["dare", "dare-linear-svd"],
    summary: "drop elements at random, scale up the rest, sum",
    source: "https://arxiv.org/abs/2311.03099",
    takes: &[DENSITY, LAMBDA, SEED],
    peers: &[Compat::Peft, Compat::Mergekit],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Scale],
    check: anything,
    kind: Kind::Elementwise(Elementwise { trim: Trim::Random, blend: Blend::Sum }),
};
