//! Manage and merge LoRA adapters: exact, streaming, without Python.
//!
//! The layers, from bytes to verbs; each may use those above it in this list, as `ARCHITECTURE.md`
//! draws it:
//!
//! - [`format`](mod@format): bytes on disk: safetensors headers, mapped checkpoints, the atomic writer
//! - [`math`]: matrices in memory: the merge kernel and the exact low-rank algebra
//! - [`weight`]: which numbers a stored tensor holds, one file an encoding; which tensors of two checkpoints are
//!   the same one, and how they differ
//! - [`adapter`]: what an adapter is: key grammars, modules, scales, where they land in a base
//! - [`method`]: how deltas are combined, one pure file a method
//! - [`ops`]: one verb a file: options → plan → run → report
//! - [`error`]: what can go wrong, where, and what to do about it
//!
//! The command line and its JSON are the stable surface; this library is 0.x.

pub mod adapter;
pub mod error;
pub mod format;
pub mod math;
pub mod method;
pub mod ops;
pub mod weight;

pub use error::{Error, ErrorKind, Result};
