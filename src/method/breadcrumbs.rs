//! Model Breadcrumbs: outliers and small perturbations are both dropped from each delta, the rest is summed
//! (Davari and Belilovsky 2023, <https://arxiv.org/abs/2312.06795>).
//!
//! The `gamma` share of the largest goes first, then the smallest until `density` is left.

use super::elementwise::{Blend, Elementwise, Trim};
use super::params::{DENSITY, GAMMA, LAMBDA};
use super::{Compat, Kind, Law, Method, anything};

pub(super) static METHOD: Method = Method {
    name: "breadcrumbs",
    aliases: &["model-breadcrumbs"],
    summary: "drop the largest and the smallest elements, sum",
    source: "https://arxiv.org/abs/2312.06795",
    takes: &[DENSITY.or(0.9), GAMMA, LAMBDA],
    peers: &[Compat::Mergekit],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Permutation, Law::Scale],
    check: anything,
    kind: Kind::Elementwise(Elementwise { trim: Trim::SmallestAndLargest, blend: Blend::Sum }),
};
