//! compare: do these adapters get along? Per pair and module the angle between their updates, the
//! subspaces they share, how they would add up, one line of advice that names its rule, and of many the groups that
//! belong together.

mod clusters;
mod report;
mod run;

pub use report::{AdapterSummary, Cluster, Measures, ModulePair, Pair, Report};
pub use run::{Options, run};
