//! `resize`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::Result;
use lora_tool::ops::combine::RankPolicy;
use lora_tool::ops::resize;

use super::combine::CombineOptions;
use crate::cli::args::location;
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool resize style -o style-r8 --rank 8
  lora-tool resize style.safetensors -o small.safetensors --rank energy:0.98
  lora-tool resize style.safetensors -o small.safetensors --rank size:32MiB
  lora-tool resize style -o style-r16 --rank lossless --max-rank 16 --uniform
  lora-tool resize style --explore", mut_arg("output", |output| output.required(false).required_unless_present("explore")))]
pub(crate) struct ResizeArgs {
    #[arg(required_unless_present = "model", value_parser = location())]
    adapter: Option<PathBuf>,
    /// The same, as kohya's scripts have it
    #[arg(long, hide = true, conflicts_with = "adapter", value_parser = location())]
    model: Option<PathBuf>,
    #[arg(long, required_unless_present_any = ["dynamic_method", "explore"])]
    rank: Option<RankPolicy>,
    #[arg(long)]
    conv_rank: Option<RankPolicy>,
    #[arg(long, requires = "dynamic_param")]
    dynamic_method: Option<String>,
    #[arg(long, requires = "dynamic_method")]
    dynamic_param: Option<f64>,
    #[arg(long, conflicts_with_all = ["output", "rank", "dynamic_method"])]
    explore: bool,
    #[command(flatten)]
    how: CombineOptions,
}

impl ResizeArgs {
    fn options(&self, threads: usize) -> Result<resize::Options> {
        let adapter = self.adapter.clone().or_else(|| self.model.clone()).unwrap_or_default();
        let ranks = resize::Ranks {
            // Of what is explored every rank is looked at.
            rank: self.rank.or(self.explore.then_some(RankPolicy::Lossless)),
            conv_rank: self.conv_rank,
            dynamic: self.dynamic_method.clone().zip(self.dynamic_param),
        };
        resize::Options::new(adapter, &ranks, self.how.options(threads))
    }
}

impl Verb for ResizeArgs {
    fn run(&self, session: &Session) -> Outcome {
        if self.explore {
            let progress = session.steps("reading");
            let report = resize::explore(&self.options(session.threads)?, &*progress)?;
            drop(progress);
            session.answer("resize", self.how.outcome.json, &report, render::explore::report)?;
            return Ok(Answer::Yes);
        }
        self.how.run("resize", &resize::plan(&self.options(session.threads)?)?, session)
    }
}
