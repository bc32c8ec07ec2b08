//! `diff`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::ops::diff;

use crate::cli::args::{OpenArgs, location};
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool diff base.safetensors tuned.safetensors
  lora-tool diff adapter adapter-resized --tolerance 1e-2
  lora-tool diff style.safetensors style-peft --json")]
pub(crate) struct DiffArgs {
    /// A checkpoint or an adapter
    #[arg(value_parser = location())]
    a: PathBuf,
    /// Another one
    #[arg(value_parser = location())]
    b: PathBuf,
    /// Relative difference up to which two are the same; 1e-6 of adapters, 0 of checkpoints
    #[arg(long, value_name = "X")]
    tolerance: Option<f64>,
    #[command(flatten)]
    open: OpenArgs,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Verb for DiffArgs {
    fn run(&self, session: &Session) -> Outcome {
        let options = diff::Options {
            a: self.a.clone(),
            b: self.b.clone(),
            open: self.open.options(),
            tolerance: self.tolerance,
            threads: session.threads,
        };
        let report = diff::run(&options, &*session.steps("comparing"))?;
        session.answer("diff", self.json, &report, |report| {
            render::diff::report(report, session.verbose)
        })?;
        Ok(Answer::from(report.same))
    }
}
