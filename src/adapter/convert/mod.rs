//! The conversion engine: an adapter in another convention, whichever verb asks for it. `reexpress`
//! decides what the result is made of, `Checked` writes it and compares it with the original.
//!
//! Tensors are carried as they are wherever the target can hold them; scales that it cannot say go into the
//! factors; what would be lost is an error.

mod base_facts;
mod compare;
mod factors;
mod fit;
mod fold;
mod goal;
mod module;
mod names;
mod native;
mod owners;
mod passthrough;
mod reexpress;
mod requirements;
mod rotations;
mod rows;
mod served;
mod served_experts;
mod served_names;
mod served_zeros;
mod shape;
mod stage;
mod stored;
mod zeros;

pub(crate) use base_facts::BaseFacts;
pub use goal::ModuleReport;
pub(crate) use goal::{Conversion, Goal};
pub(crate) use reexpress::reexpress;
pub(crate) use requirements::{Experts, Takes};
pub(crate) use shape::complete;
pub(crate) use stage::Checked;
