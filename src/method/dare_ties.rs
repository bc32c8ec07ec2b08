//! DARE's random dropping (Yu et al. 2023, <https://arxiv.org/abs/2311.03099>) before TIES' election of
//! signs; what agrees is averaged as in `ties`. mergekit sums it, unless `reduce` is given.

use super::elementwise::{Blend, Elementwise, Trim};
use super::params::{DENSITY, LAMBDA, MAJORITY_SIGN, REDUCE, SEED};
use super::{Compat, Kind, Law, Method, anything};

pub(super) static METHOD: Method = Method {
    name: "dare-ties",
    aliases: &["dare-ties-svd"],
    summary: "drop elements at random, scale up the rest, elect a sign, average those that agree",
    source: "https://arxiv.org/abs/2311.03099",
    takes: &[DENSITY, MAJORITY_SIGN, REDUCE, LAMBDA, SEED],
    peers: &[Compat::Peft, Compat::Mergekit],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Scale],
    check: anything,
    kind: Kind::Elementwise(Elementwise { trim: Trim::Random, blend: Blend::Elect }),
};
