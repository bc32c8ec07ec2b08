//! What an adapter is: its files, its key grammar, its modules and their scales.
//!
//! **Invariant:** every tensor of an adapter's file is part of a module, a replacement, or a fault;
//! none is ignored. Nothing here knows verbs or the terminal.

mod architecture;
pub mod block_weights;
mod catalogue;
pub mod convention;
pub(crate) mod convert;
mod expert_factors;
pub mod family;
pub mod files;
mod flat;
mod gguf_base;
pub mod hashes;
pub(crate) mod identity;
pub mod key;
pub mod layout;
pub mod module;
mod new_adapter;
mod open;
mod open_options;
pub mod orientation;
mod pattern;
pub(crate) mod peers;
mod peft_type;
pub mod place;
pub mod promised;
pub(crate) mod recast;
pub mod rename;
pub(crate) mod resolve;
pub mod save;
pub mod scale;
mod scope;
pub mod sidecar;
pub mod slice;
pub(crate) mod stack_names;
pub mod stacks;
pub mod target;
pub mod tensor;
pub mod training;
pub(crate) mod unify;
pub mod write;

pub use open::Adapter;
pub use open_options::OpenOptions;
