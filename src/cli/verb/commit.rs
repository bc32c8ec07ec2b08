//! `commit`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::ops::commit::{self, Options, Report};

use super::batch;
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool commit plan.json
  lora-tool commit plan.json --json")]
pub(crate) struct CommitArgs {
    /// What `--plan` wrote (of merge, extract or batch)
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
        match &report {
            Report::Merge(report) => session.warn(&report.warnings),
            Report::Extract(report) => session.warn(&report.warnings),
            Report::Batch(_) => {}
        }
        session.answer("commit", self.json, &report, |report| text(report, session.verbose))?;
        Ok(match &report {
            Report::Batch(report) => batch::answer(report),
            _ => Answer::Yes,
        })
    }
}

/// The report as its verb has it.
fn text(report: &Report, verbose: bool) -> String {
    match report {
        Report::Merge(report) => render::merge::report(report, verbose),
        Report::Extract(report) => render::extract::report(report, verbose),
        Report::Batch(report) => render::batch::report(report, verbose),
    }
}
