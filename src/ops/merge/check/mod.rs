//! What the merge should have written: a comparison with a second run of it, and rows in plain f64 loops that
//! share nothing with it.

mod bytes;
pub(in crate::ops) mod comparison;
pub(in crate::ops) mod exact;
mod expected;
mod files;
mod rows;
pub(in crate::ops) mod verdict;
