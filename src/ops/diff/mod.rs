//! diff: how two checkpoints, or two adapters, differ in numbers.
//!
//! Adapters are compared by what they do: the deltas of a module, whatever factors, scale, dtype or
//! convention they are stored in, and without forming them.

mod adapters;
mod checkpoints;
mod report;
mod run;

pub use report::{Compared, Differs, Options, Report};
pub use run::run;
