//! What the merge should have written, in plain f64 loops that share nothing with it.

pub(in crate::ops) mod exact;
