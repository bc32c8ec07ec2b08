//! Weights as numbers: the one place that answers which numbers a stored tensor holds.
//!
//! A checkpoint's tensors become logical weights ([`Weights::of`]): codes and what belongs to them (scales,
//! zero points, group indices, descriptions) are folded into one weight under the name that an adapter
//! knows. Each is decoded by panels of rows ([`Weight::rows`]), in f32, exactly as the package that made it
//! does. An encoding is one file in [`encoding`] and one entry in its list.

mod codes;
mod config;
mod decode;
mod decoded;
pub mod encoding;
mod fp4;
mod grid;
mod model;
mod stored;
mod weights;

pub use config::Config;
pub use decode::Decode;
pub use decoded::{decoded, open};
pub use stored::Stored;
pub use weights::{Weight, Weights};
