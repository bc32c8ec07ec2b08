//! How many singular values to keep.

pub mod noise;
pub mod policy;
mod text;

pub use text::amount;
