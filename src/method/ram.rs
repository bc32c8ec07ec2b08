//! RAM, Reinforced Agent Merging (Yuan et al. 2026, <https://arxiv.org/abs/2601.13572>): an element that one delta alone
//! changes stays what it is, and one that several change becomes their mean.
//!
//! With Cₑ the inputs whose |Δᵢ| at an element is above ε, the result there is λ·Σ wᵢ·Δᵢ / |Cₑ| over them. It is made
//! for updates that leave most elements as they are; a product of factors changes nearly all, so that of LoRAs it
//! is the mean.

use super::elementwise::{Blend, Elementwise, Trim};
use super::params::{EPSILON, LAMBDA};
use super::{Compat, Kind, Law, Method, anything};

pub(super) static METHOD: Method = Method {
    name: "ram",
    aliases: &[],
    summary: "keep what one delta alone changes, average what several change",
    source: "https://arxiv.org/abs/2601.13572",
    takes: &[EPSILON.or(1e-5), LAMBDA],
    peers: &[Compat::Mergekit],
    keeps_factors: false,
    // What counts as 0 has a size, so twice the deltas are not twice the result.
    laws: &[Law::Identity, Law::Negation, Law::Permutation],
    check: anything,
    kind: Kind::Elementwise(Elementwise { trim: Trim::Tiny, blend: Blend::Share }),
};
