//! Matrices in memory: element types, packed factors, and the merge kernel.
//!
//! **Invariant:** nothing here knows files, tensor names, alpha, or dtype strings, and nothing here
//! fails on user data: shapes were checked before. A wrong shape is the caller's bug and panics.

pub mod delta;
pub mod element;
pub mod factor;
pub mod fused;
mod kernel;
pub mod staged;

pub use delta::DeltaStats;
pub use element::{Element, ElementType};
pub use factor::{Factor, PackedLeft, PackedRight};
