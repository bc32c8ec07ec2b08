//! The front of the library: what a program that uses this crate sees, a thin face over the verbs in `ops/`.
//!
//! Options are made by a constructor with what must be given, and setters for the rest; reports are the ones that
//! the command prints with `--json`. Nothing is computed here but the rows of a module's update.

#[macro_use]
mod setters;

mod adapter;
pub mod as_lora;
pub mod check;
mod checkpoint;
pub mod combine;
pub mod convert;
pub mod extract;
mod factors;
pub mod inspect;
pub mod merge;
mod method;
mod open;
pub mod resize;
mod selection;

pub use adapter::{Adapter, Module};
pub use checkpoint::{Checkpoint, Tensor};
pub use factors::Factors;
pub use method::{Method, Parameter};
pub use open::OpenOptions;

pub use crate::format::Dtype;
pub use crate::math::RankPolicy;
pub use crate::method::{Compat, Space};
pub use crate::ops::Progress;
