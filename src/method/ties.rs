//! TIES: trim to the largest elements, elect a sign, average what agrees with it (Yadav et al. 2023,
//! <https://arxiv.org/abs/2306.01708>).
//!
//! With x the trimmed deltas and γ = sign(Σ wᵢ·xᵢ), the result is λ·Σ wᵢ·xᵢ / Σ |wᵢ| over the inputs with
//! sign(wᵢ·xᵢ) = γ. PEFT elects before weighting and divides by the number of those that agree;
//! mergekit divides by Σ wᵢ; both take a sum of 0 for positive.

use super::elementwise::{Blend, Elementwise, Trim};
use super::params::{DENSITY, LAMBDA, MAJORITY_SIGN, REDUCE};
use super::{Compat, Kind, Law, Method, anything};

pub(super) static METHOD: Method = Method {
    name: "ties",
    aliases: &["ties-svd"],
    summary: "keep the largest elements, elect a sign, average those that agree",
    source: "https://arxiv.org/abs/2306.01708",
    takes: &[DENSITY.or(0.2), MAJORITY_SIGN, REDUCE, LAMBDA],
    peers: &[Compat::Peft, Compat::Mergekit],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Permutation, Law::Scale],
    check: anything,
    kind: Kind::Elementwise(Elementwise { trim: Trim::Smallest, blend: Blend::Elect }),
};
