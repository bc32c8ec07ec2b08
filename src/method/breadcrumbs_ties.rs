//! Model Breadcrumbs' double trim (Davari and Belilovsky 2023, <https://arxiv.org/abs/2312.06795>) before
//! TIES' election of signs, as mergekit's `breadcrumbs_ties` (`merge_methods/registry.py`) has it; what agrees
//! is averaged as in `ties`. mergekit sums it, unless `reduce` is given.

use super::elementwise::{Blend, Elementwise, Trim};
use super::params::{DENSITY, GAMMA, LAMBDA, MAJORITY_SIGN, REDUCE};
use super::{Compat, Kind, Law, Method, anything};

pub(super) static METHOD: Method = Method {
    name: "breadcrumbs-ties",
    aliases: &[],
    summary: "drop the largest and the smallest elements, elect a sign, average those that agree",
    source: "https://arxiv.org/abs/2312.06795",
    takes: &[DENSITY.or(0.9), GAMMA, MAJORITY_SIGN, REDUCE, LAMBDA],
    peers: &[Compat::Mergekit],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Permutation, Law::Scale],
    check: anything,
    kind: Kind::Elementwise(Elementwise { trim: Trim::SmallestAndLargest, blend: Blend::Elect }),
};
