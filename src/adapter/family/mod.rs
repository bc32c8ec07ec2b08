//! Parametrisations of an update, one file each: from a module's tensors to a checked [`Module`](super::module::Module).
//!
//! `FAMILIES` (`registry.rs`) is the one list. A family says by which parts it is recognised, which others it takes,
//! and how a module is made of them; a part that none of a module's family takes is a fault.

mod adalora;
mod bdlora;
mod boft;
mod c3a;
mod decompose;
mod definition;
mod deft;
mod delora;
mod fourierft;
mod full;
mod glora;
mod glora_paths;
mod gralora;
mod hira;
mod hra;
mod ia3;
mod loha;
mod lokr;
pub mod lora;
mod matrices;
mod miss;
mod oft;
pub(crate) mod oft_blocks;
mod positions;
mod randlora;
mod registry;
pub(super) mod replaced;
mod road;
mod shira;
mod source;
mod tinylora;
mod unilora;
mod vblora;
mod vera;
mod waveft;

use definition::Family;
pub(super) use registry::module;
pub(super) use source::{Parts, Source};
use source::{check_length, read_alpha};
