//! check: what programs would refuse, ignore, scale wrongly or put elsewhere of an adapter, and how to put
//! it right.
//!
//! A program is one file of `program/`: what it reads, and its rules as data. `judge` applies them,
//! `anomaly` looks at the factors themselves.

mod anomaly;
mod base;
mod cure;
mod judge;
mod place;
pub(in crate::ops) mod program;
mod report;
mod rule;
mod run;
mod sarif;
mod shared;
mod subject;
mod version;

pub use place::Place;
pub(super) use program::rank_flag as vllm_rank;
pub use report::{Answer, Finding, Report, Severity, Verdict};
pub use rule::Effect;
pub(super) use run::needs;
pub use run::{Options, programs, run};
pub use sarif::sarif;
pub use version::Version;
