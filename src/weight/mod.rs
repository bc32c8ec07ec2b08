//! Weights as numbers: which numbers a stored tensor holds, which tensors of two checkpoints are the same one,
//! and how they differ.
//!
//! A checkpoint's tensors become logical weights ([`Weights::of`]): codes and what belongs to them (scales,
//! zero points, group indices, descriptions) are folded into one weight under the name that an adapter
//! knows. Each is decoded by panels of rows ([`Weight::rows`]), in f32, exactly as the package that made it
//! does. An encoding is one file in [`encoding`] and one entry in its list.
//!
//! **Invariant:** two checkpoints are paired in `pair.rs` and subtracted in `difference.rs`, nowhere else, so
//! that all verbs agree on any pair. Nothing here knows adapters, verbs or the terminal.

mod codes;
mod config;
mod decode;
mod decoded;
pub(crate) mod difference;
pub mod element;
mod encode;
pub mod encoding;
mod float8;
mod fp4;
mod grid;
mod groups;
mod integers;
mod matrix;
mod model;
mod noise;
mod numbers;
pub(crate) mod pair;
mod relabelled;
mod retyped;
pub(crate) mod root;
mod rounding;
mod scheme;
mod skip;
mod stored;
pub(crate) mod tied;
mod trained;
mod weights;

pub use config::{Config, SIDE_FILES};
pub use decode::Decode;
pub use decoded::{decoded, open, plain_metadata};
pub use encode::{Encode, Encoded, Panel, Part, Piece};
pub(crate) use encoding::TRAINED;
pub use encoding::TRAINED_NAMES;
pub(crate) use encoding::ggml_writer;
pub(crate) use matrix::{as_matrix, unstacked};
pub(crate) use numbers::{numbers, open_reference};
pub(crate) use relabelled::relabelled;
pub(crate) use retyped::EightBit;
pub use rounding::{Rounding, Scales, Writing};
pub(crate) use scheme::quantisation;
pub use skip::{fused, metadata_without};
pub use stored::Stored;
pub(crate) use trained::{Trained, as_trained};
pub use weights::{Rows, Weight, Weights, Written};
