//! `work`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::ops::work::{self, Options};

use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Paths in the plan are as they were given to --plan: run it in the same directory. A worker that was killed
is run again; what is finished is not made twice. Without --shard, an array job of Slurm says the part in
SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT, an indexed job of Kubernetes in JOB_COMPLETION_INDEX, and its
template sets JOB_COMPLETIONS.

Examples:
  lora-tool work plan.json --shard 3/16
  lora-tool work plan.json --shard 3/16 --json
  srun lora-tool work plan.json")]
pub(crate) struct WorkArgs {
    /// What `--plan` wrote (of merge, extract or batch)
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// Which part of the work: the K-th of N, from 1/N to N/N
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Verb for WorkArgs {
    fn run(&self, session: &Session) -> Outcome {
        Options::check_plan(&self.plan)?;
        let part = Options::part(self.shard.as_deref(), |name| std::env::var(name).ok())?;
        let options = Options { plan: self.plan.clone(), part, threads: session.threads };
        let report = work::run(&options, &*session.bytes("working"))?;
        session.answer("work", self.json, &report, |report| {
            render::work::done(report, session.verbose)
        })?;
        Ok(if report.failed.is_empty() { Answer::Yes } else { Answer::Unknown })
    }
}
