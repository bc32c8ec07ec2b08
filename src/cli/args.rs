//! The other verbs' arguments.

use std::path::PathBuf;

use clap::Args;
use lora_tool::Result;
use lora_tool::ops::{inspect, verify};

use super::merge_args::{MergeOptions, OpenArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool inspect ADAPTER
  lora-tool inspect ADAPTER --modules --against BASE
  lora-tool inspect ADAPTER --spectrum
  lora-tool inspect BASE ADAPTER --json")]
pub(crate) struct InspectArgs {
    /// Adapters or checkpoints
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// List every module
    #[arg(long)]
    pub(crate) modules: bool,
    /// List what the header says of the training too
    #[arg(long)]
    pub(crate) metadata: bool,
    /// Read the factors: norms, singular values and effective ranks of every module
    #[arg(long)]
    pub(crate) spectrum: bool,
    /// Show where each module lands in this base
    #[arg(long, value_name = "BASE")]
    pub(crate) against: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    /// Print the report as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl InspectArgs {
    pub(crate) fn options(&self) -> inspect::Options {
        inspect::Options {
            paths: self.paths.clone(),
            against: self.against.clone(),
            spectrum: self.spectrum,
            open: self.open.options(),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool verify MERGED --base BASE --adapter ADAPTER
  lora-tool verify MERGED --base BASE --adapter style task -w 1 0.5 --dtype bf16")]
pub(crate) struct VerifyArgs {
    /// The merged checkpoint to judge
    pub(crate) merged: PathBuf,
    /// The base it was made from
    #[arg(long, value_name = "BASE")]
    pub(crate) base: PathBuf,
    /// The adapters that were merged, in order
    #[arg(long, required = true, num_args = 1.., value_name = "ADAPTER")]
    pub(crate) adapter: Vec<String>,
    #[command(flatten)]
    pub(crate) how: MergeOptions,
    /// Print the report as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl VerifyArgs {
    pub(crate) fn options(&self) -> Result<verify::Options> {
        let merge = self.how.options(self.base.clone(), &self.adapter)?;
        Ok(verify::Options { merged: self.merged.clone(), merge })
    }
}
