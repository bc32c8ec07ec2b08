//! `batch`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::format::Access;
use lora_tool::ops::batch::{self, ItemReport, Options, Report, Status};

use super::shared_work::PlanArgs;
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  lora-tool batch jobs.yaml --dry-run
  lora-tool batch jobs.yaml
  lora-tool batch jobs.yaml --skip-done --json
  lora-tool batch jobs.yaml --plan plan.json --workers 16

Exit codes: 0 all items are done, 1 the answer of a check is no, 2 an item could not be done.",
    after_long_help = "\
JOBS is YAML: a list of items, each with a verb (resize, convert, check, merge, combine, extract) and that verb's
options as keys, with underscores. Paths are relative to the file's own folder:

  defaults:                      # keys of all items whose verb has them
    reference: base
  items:
    - verb: resize
      adapter: loras/*.safetensors     # an item for each file that matches
      rank: energy:0.98
      output: small/{name}.safetensors # {name}: the adapter's file or folder, without its ending
    - verb: convert
      adapter: [style, task]           # or for each of a list
      for: vllm
      output: served/{name}
    - verb: check
      adapter: loras/*.safetensors
      for: comfyui
    - verb: merge
      base: base
      adapter: {path: 'loras/*', weight: 0.7}  # one merge for each
      adapters: [common]               # and these go into each of them
      output: merged/{name}

Keys of merge and combine are those of a recipe (`lora-tool run --help`); docs/options.md lists all keys. Items do not
depend on one another and are worked on in no order, several at once; an item that fails is reported, and does not stop
the others. Outputs that are there are refused before any work, or with --skip-done left alone.

Examples:
  lora-tool batch jobs.yaml --dry-run
  lora-tool batch jobs.yaml
  lora-tool batch jobs.yaml --skip-done --json
  lora-tool batch jobs.yaml --plan plan.json --workers 16

Exit codes: 0 all items are done, 1 the answer of a check is no, 2 an item could not be done."
)]
pub(crate) struct BatchArgs {
    /// The items, a YAML file
    #[arg(value_name = "JOBS")]
    jobs: PathBuf,
    /// Items that are worked on at once; as many as there are threads by default
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    at_once: usize,
    /// Leave items alone whose outputs are there: to go on where a run stopped
    #[arg(long, conflicts_with = "force")]
    skip_done: bool,
    /// Begin no other item after one that fails, or whose answer is no
    #[arg(long)]
    fail_fast: bool,
    /// Read inputs instead of memory-mapping them, for network file systems
    #[arg(long)]
    no_mmap: bool,
    #[command(flatten)]
    plan: PlanArgs,
    /// Replace existing outputs
    #[arg(short, long)]
    force: bool,
    /// Check everything and plan each item; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Verb for BatchArgs {
    fn run(&self, session: &Session) -> Outcome {
        let batch = batch::plan(&Options {
            jobs: self.jobs.clone(),
            access: if self.no_mmap { Access::Read } else { Access::Map },
            force: self.force,
            skip_done: self.skip_done,
            fail_fast: self.fail_fast,
            at_once: self.at_once,
            threads: session.threads,
        })?;
        if let Some(file) = &self.plan.plan {
            let report = batch.write_plan(file, self.plan.workers)?;
            session.answer("batch", self.json, &report, render::work::written)?;
            return Ok(Answer::Yes);
        }
        let tell = |item: &ItemReport| session.note(&render::batch::ended(item));
        let report = {
            let progress = session.bytes(if self.dry_run { "planning" } else { "working" });
            match self.dry_run {
                true => batch.dry_run(&*progress, &tell)?,
                false => batch.run(&*progress, &tell)?,
            }
        };
        session.answer("batch", self.json, &report, |report| {
            render::batch::report(report, session.verbose)
        })?;
        Ok(answer(&report))
    }
}

/// What the exit code says of all items.
pub(super) fn answer(report: &Report) -> Answer {
    let is = |status| report.items.iter().any(|item| item.status == status);
    if report.failed > 0 {
        Answer::Unknown
    } else if is(Status::No) {
        Answer::No
    } else {
        Answer::Yes
    }
}
