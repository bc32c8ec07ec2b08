//! The weighted sum of what is left of each delta when only its largest elements are kept (peft
//! `utils/merge_utils.py`, <https://huggingface.co/docs/peft/developer_guides/model_merging>).

use super::elementwise::{Blend, Elementwise, Trim};
use super::params::{DENSITY, LAMBDA};
use super::{Compat, Kind, Law, Method, anything};

pub(super) static METHOD: Method = Method {
    name: "magnitude-prune",
    aliases: &["magnitude-prune-svd"],
    summary: "keep the largest elements, sum",
    source: "https://huggingface.co/docs/peft/developer_guides/model_merging",
    takes: &[DENSITY, LAMBDA],
    peers: &[Compat::Peft],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Permutation, Law::Scale],
    check: anything,
    kind: Kind::Elementwise(Elementwise { trim: Trim::Smallest, blend: Blend::Sum }),
};
