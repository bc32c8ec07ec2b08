//! The merge kernel: stored number types, vectors of sixteen floats, and passes from stored bytes to stored
//! bytes.

pub mod delta;
pub mod element;
pub mod f64_panel;
pub mod factor;
pub mod fused;
pub(in crate::math) mod lanes;
pub(crate) mod loops;
pub mod small_float;
pub mod stored_delta;
pub(in crate::math) mod vectors;
