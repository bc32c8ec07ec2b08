//! `verify`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use lora_tool::Result;
use lora_tool::ops::verify;

use super::merge::MergeOptions;
use crate::cli::args::location;
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool verify MERGED
  lora-tool verify MERGED --base BASE --adapter ADAPTER
  lora-tool verify MERGED --base BASE --adapter style task -w 1 0.5 --dtype bf16
  lora-tool verify MERGED --base BASE --adapter ADAPTER --sample 4")]
pub(crate) struct VerifyArgs {
    /// The merged checkpoint to judge
    #[arg(value_parser = location())]
    merged: PathBuf,
    /// The base it was made from [default: the one that the header names, beside MERGED or here]
    #[arg(long, value_name = "BASE", value_parser = location())]
    base: Option<PathBuf>,
    /// The adapters that were merged, in order [default: as for --base]
    #[arg(long, num_args = 1.., value_name = "ADAPTER")]
    adapter: Vec<OsString>,
    #[command(flatten)]
    how: MergeOptions,
    /// A quick look: only so many rows of each tensor, instead of every byte
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl VerifyArgs {
    fn options(&self) -> Result<verify::Options> {
        let told = self.how.options(self.base.clone().unwrap_or_default(), &self.adapter)?;
        let merge = match &self.base {
            Some(_) if !self.adapter.is_empty() => told,
            _ => verify::recorded(&self.merged, &told)?,
        };
        Ok(verify::Options { merged: self.merged.clone(), merge, sample: self.sample })
    }
}

impl Verb for VerifyArgs {
    fn run(&self, session: &Session) -> Outcome {
        let report = verify::run(&self.options()?, &*session.bytes("verifying"))?;
        session.warn(&report.warnings);
        session.answer("verify", self.json, &report, render::verify::report)?;
        Ok(Answer::from(report.ok))
    }
}
