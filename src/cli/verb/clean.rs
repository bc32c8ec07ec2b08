//! `clean`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::ops::clean;

use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool clean
  lora-tool clean merged loras --dry-run

Only temporaries go (.NAME.partial-XXXXXX), and only those that no run holds: every run locks its own. The answer is \
no (exit status 1) if a run is under way, or the file system has no locks and nobody can tell.")]
pub(crate) struct CleanArgs {
    /// Folders to look in and below
    #[arg(default_value = ".", value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// Also remove the finished shards that interrupted `merge --resume` runs keep
    #[arg(long)]
    kept: bool,
    /// Only list what would be removed
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Verb for CleanArgs {
    fn run(&self, session: &Session) -> Outcome {
        let (paths, kept, dry_run) = (self.paths.clone(), self.kept, self.dry_run);
        let report = clean::run(&clean::Options { paths, kept, dry_run })?;
        session.answer("clean", self.json, &report, render::clean::report)?;
        Ok(Answer::from(report.is_clean()))
    }
}
