//! Work for several machines: a plan as a file, shared out by parts that do not depend on one another.
//!
//! What is shared out, and what its parts are, the verbs say: the shards of a merge, the modules of an extraction, the
//! items of a batch. Here is what is the same for all of them.

pub(in crate::ops) mod balance;
pub(in crate::ops) mod document;
pub(in crate::ops) mod identity;
pub(in crate::ops) mod locations;
pub(in crate::ops) mod note;
pub(in crate::ops) mod shared;
pub(in crate::ops) mod worker_part;

pub use document::{JobPart, Written};
pub use identity::{InputFile, Looked};
pub use worker_part::WorkerPart;
