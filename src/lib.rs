//! x
pub mod error; pub mod format; pub mod math;
