//! A merge for several machines: its plan as a file, shared out by shards.

pub(in crate::ops) mod balance;
pub(in crate::ops) mod document;
pub(in crate::ops) mod identity;
pub(in crate::ops) mod worker_part;
