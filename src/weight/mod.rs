//! What the stored weights of a model are: which tensors of two checkpoints are the same one, and how they
//! differ.
//!
//! **Invariant:** two checkpoints are paired in `pair.rs` and subtracted in `difference.rs`, nowhere else, so
//! that all verbs agree on any pair. Nothing here knows adapters, verbs or the terminal.

pub(crate) mod difference;
pub mod element;
pub(crate) mod pair;
pub(crate) mod root;
pub(crate) mod tied;
