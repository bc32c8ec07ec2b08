//! `commit`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::ops::commit::{self, Options};

use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool commit plan.json
  lora-tool commit plan.json --json")]
pub(crate) struct CommitArgs {
    /// What `merge --plan` wrote
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Verb for CommitArgs {
    fn run(&self, session: &Session) -> Outcome {
        let options = Options { plan: self.plan.clone(), threads: session.threads };
        let report = commit::run(&options, &*session.bytes("checking"))?;
        session.warn(&report.warnings);
        session.answer("commit", self.json, &report, |report| {
            render::merge::report(report, session.verbose)
        })?;
        Ok(Answer::Yes)
    }
}
