//! list: the adapters in folders, a row each, from their headers alone.

mod content;
mod filter;
mod find;
mod found;
mod marks;
mod row;
mod run;
mod sketch;

pub use filter::Condition;
pub use find::is_folder;
pub(in crate::ops) use find::{Candidate, candidates};
pub use row::{FIELDS, Like, Row, Scales};
pub use run::{Options, Report, Unread, run};
