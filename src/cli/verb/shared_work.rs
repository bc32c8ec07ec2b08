//! What leaves work to other machines.

use std::path::PathBuf;

use clap::Args;

/// What leaves work to workers.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Write the plan to this file, for `work` and `commit`; do nothing else
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub(crate) plan: Option<PathBuf>,
    /// With --plan: share the work out for so many workers
    #[arg(long, value_name = "N", requires = "plan")]
    pub(crate) workers: Option<usize>,
}
