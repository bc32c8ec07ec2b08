//! Matrices in memory: element types, the merge kernel, and the exact low-rank algebra.
//!
//! **Invariant:** nothing here knows files, tensor names, alpha, or dtype strings, and nothing here
//! fails on user data: shapes and finiteness were checked before. A wrong shape is the caller's bug
//! and panics.

pub mod blend;
pub mod chain;
pub mod composite;
pub mod delta;
pub mod element;
pub mod factor;
pub mod fused;
mod kernel;
mod lanes;
pub mod low_rank;
pub mod matrix;
pub mod moved;
pub mod noise;
pub mod panels;
pub mod qr;
pub mod random;
pub mod rank;
mod rank_text;
pub mod residual;
pub mod select;
pub mod sketch;
pub mod small_float;
pub mod sparsify;
pub mod spectrum;
pub mod staged;
pub mod transform;

pub use chain::{Chain, Stage};
pub use composite::{Composite, Joint};
pub use delta::DeltaStats;
pub use element::{Element, ElementType};
pub use factor::{Factor, PackedLeft, PackedRight};
pub use low_rank::{LowRank, Svd};
pub use matrix::Matrix;
pub use rank::RankPolicy;
pub use rank_text::amount;
pub use transform::Transform;
