//! SCE: select the elements at which the deltas vary most among each other, calculate each one's share by
//! its energy there, erase what is against the elected sign (Wan et al. 2024,
//! <https://arxiv.org/abs/2408.07990>).

use super::elementwise::{Blend, Elementwise, Trim};
use super::params::{DENSITY, LAMBDA};
use super::{Compat, Kind, Law, Method, anything};

pub(super) static METHOD: Method = Method {
    name: "sce",
    aliases: &[],
    summary: "keep where deltas vary most, weight them by energy, drop those against the elected sign",
    source: "https://arxiv.org/abs/2408.07990",
    takes: &[DENSITY.or(1.0), LAMBDA],
    peers: &[Compat::Mergekit],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Permutation, Law::Scale],
    check: anything,
    kind: Kind::Elementwise(Elementwise { trim: Trim::LeastVarying, blend: Blend::ElectByEnergy }),
};
