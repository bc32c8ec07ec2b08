//! Parametrisations of an update, one file each: from a module's tensors to a checked [`Module`](super::module::Module).
//!
//! `families!` is the one list. A family says by which parts it is recognised, which others it takes,
//! and how a module is made of them; a part that none of a module's family takes is a fault.

#[macro_use]
mod registry;

families! {
    loha: FAMILY;
    lokr: FAMILY;
    adalora: FAMILY;
    vera: FAMILY, PVERA;
    unilora: FAMILY;
    fourierft: FAMILY;
    waveft: FAMILY;
    c3a: FAMILY;
    shira: SHIRA, SUPERTUNING;
    road: FAMILY;
    deft: FAMILY;
    glora_paths: FAMILY;
    tinylora: FAMILY;
    delora: FAMILY;
    gralora: FAMILY;
    vblora: FAMILY;
    randlora: FAMILY;
    miss: FAMILY;
    ia3: PEFT, LYCORIS;
    oft: FAMILY;
    boft: FAMILY;
    pub(crate) oft_blocks: FAMILY;
    hra: FAMILY;
    hira: FAMILY;
    glora: FAMILY;
    pub lora: FAMILY;
    full: BEFT, FAMILY, BIAS;
}

mod bdlora;
mod decompose;
mod definition;
mod matrices;
mod positions;
mod prelude;
pub(super) mod replaced;
mod source;

pub(super) use registry::module;
pub(super) use source::{Parts, Source};
use source::{check_length, read_alpha};
