//! batch: many adapters through other verbs, an item at a time; items do not depend on one another.
//!
//! `jobs.rs` makes items of a file, `verbs.rs` says which verbs there are and reads an item's keys into a verb's own
//! options (`asked.rs`), `check.rs` holds the items to one another before any work, and `run.rs` works on several at once
//! or `share.rs` gives them to several machines.

mod asked;
mod check;
mod item;
mod jobs;
mod open;
mod ready;
mod report;
mod run;
mod share;
mod verbs;

pub use open::{Batch, Options, plan};
pub use report::{ItemReport, Report, Status};
pub use share::{Items, PlannedItem};
