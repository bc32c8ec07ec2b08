//! RAM+ by tensor (Yuan et al. 2026, <https://arxiv.org/abs/2601.13572>): as RAM, and the elements that one delta alone
//! changes make up for what it loses in the others.
//!
//! Of each delta in a tensor, ρᵢ = elements that others change too / elements that it alone changes; the latter are
//! multiplied by 1 + gain · min(ρᵢ, cap). mergekit calls it `ramplus_tl`, its gain r and its cap alpha.

use super::elementwise::{Blend, Elementwise, Trim};
use super::params::{EPSILON, LAMBDA, OVERLAP_CAP, OVERLAP_GAIN};
use super::{Compat, Kind, Law, Method, anything};

pub(super) static METHOD: Method = Method {
    name: "ram-plus",
    aliases: &["ramplus", "ramplus-tl"],
    summary: "keep and raise what one delta alone changes, average what several change",
    source: "https://arxiv.org/abs/2601.13572",
    takes: &[OVERLAP_GAIN, OVERLAP_CAP, EPSILON.or(1e-5), LAMBDA],
    peers: &[Compat::Mergekit],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Permutation],
    check: anything,
    kind: Kind::Elementwise(Elementwise { trim: Trim::Tiny, blend: Blend::ShareReinforced }),
};
