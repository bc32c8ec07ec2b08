//! Bytes on disk: safetensors headers, memory-mapped checkpoints, and the atomic streaming writer.
//!
//! **Invariant:** nothing here knows what a LoRA or a matrix is. Tensors are names, dtypes, shapes
//! and byte ranges; the bytes pass through unread.

pub mod access;
pub mod checkpoint;
#[cfg(feature = "cloud")]
mod cloud;
pub mod coder;
pub mod folder;
pub mod ggml;
pub mod gguf;
pub mod glob;
pub mod hash;
pub mod header;
mod hub;
pub mod index;
pub mod json;
mod kept;
mod live;
pub mod location;
pub mod natural;
pub mod orphans;
mod output_file;
pub(crate) mod pattern;
pub mod remote;
mod shard;
pub mod shared_staging;
pub mod staging;
mod view;
pub mod yaml;

pub use access::{Access, Source};
pub use checkpoint::{Checkpoint, Component};
pub use header::{Header, Metadata, Tensor, TensorSpec};
pub use live::{abandon, committed};
pub use output_file::OutputFile;
pub use safetensors::Dtype;
pub use shard::{Computed, Shard};
pub use staging::Staging;
pub use view::TensorView;
