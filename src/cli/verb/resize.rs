//! `resize`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::ops::combine::RankPolicy;
use lora_tool::ops::resize;
use lora_tool::{ErrorKind, Result};

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
        let mut shared = self.how.options(threads);
        let mut rank = self.rank.unwrap_or(RankPolicy::Lossless);
        shared.conv_rank = self.conv_rank;
        if let (Some(method), Some(parameter)) = (&self.dynamic_method, self.dynamic_param) {
            let policy = format!("{method}:{parameter}").parse().map_err(ErrorKind::BadOption)?;
            // kohya's --new_rank and --new_conv_rank cap what its criterion finds, each for its kind of
            // module; the rank of convolutions is that of the others where none is given.
            let most = shared.max_rank;
            let cap = |asked: Option<RankPolicy>, option: &str| match asked {
                Some(RankPolicy::Fixed(cap)) => Ok(Some(most.map_or(cap, |most| most.min(cap)))),
                None => Ok(None),
                Some(other) => {
                    let reason =
                        format!("--dynamic-method and {option} {other} are two criteria; give one");
                    Err(ErrorKind::BadOption(reason))
                }
            };
            shared.max_rank = cap(self.rank, "--rank")?.or(most);
            shared.conv_max_rank = cap(self.conv_rank, "--conv-rank")?;
            rank = policy;
            shared.conv_rank = None;
        }
        Ok(resize::Options { adapter, rank, combine: shared })
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
