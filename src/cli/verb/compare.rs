//! `compare`.

use std::ffi::OsString;

use clap::Args;
use lora_tool::Result;
use lora_tool::ops::{compare, inspect};

use crate::cli::args::{OpenArgs, PageArgs, weigh};
use crate::cli::{Answer, Outcome, Session, Verb, page, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool compare style task
  lora-tool compare style task -w 0.7 0.3 --modules
  lora-tool compare style task --report pair.html
  lora-tool compare a.safetensors b.safetensors --json")]
pub(crate) struct CompareArgs {
    /// Adapters, two or more
    #[arg(required = true, num_args = 2.., value_name = "ADAPTER")]
    adapters: Vec<OsString>,
    /// The weights they would have in a sum; 1 each by default
    #[arg(short, long, value_name = "W", num_args = 1.., allow_negative_numbers = true)]
    weights: Vec<f64>,
    /// Chooses the elements at which signs are compared
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// List every module
    #[arg(long)]
    modules: bool,
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    page: PageArgs,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl CompareArgs {
    fn options(&self, threads: usize) -> Result<compare::Options> {
        Ok(compare::Options {
            adapters: weigh(&self.adapters, &self.weights)?,
            open: self.open.options(),
            seed: self.seed,
            threads,
        })
    }
}

impl Verb for CompareArgs {
    fn run(&self, session: &Session) -> Outcome {
        let options = self.options(session.threads)?;
        self.page.check(options.adapters.iter().map(|input| input.path.as_path()))?;
        let report = compare::run(&options, &*session.steps("comparing"))?;
        if self.page.report.is_some() {
            let adapters = (options.adapters.len() <= page::compare::IN_FULL).then(|| {
                inspect::run(&inspect::Options {
                    paths: options.adapters.iter().map(|input| input.path.clone()).collect(),
                    spectrum: true,
                    open: self.open.options(),
                    ..inspect::Options::default()
                })
            });
            let adapters = adapters.transpose()?;
            let inputs = options.adapters.iter().map(|input| input.path.as_path());
            self.page.write(session, inputs, |made| {
                page::compare::page(&report, adapters.as_ref(), made)
            })?;
        }
        session.answer("compare", self.json, &report, |report| {
            render::compare::report(report, self.modules || session.verbose)
        })?;
        Ok(Answer::Yes)
    }
}
