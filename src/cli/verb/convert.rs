//! `convert`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::ops::as_lora;
use lora_tool::ops::combine::RankPolicy;
use lora_tool::ops::convert::{self, Options};
use serde::Serialize;

use crate::cli::args::{OpenArgs, OutcomeArgs, destination, location};
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool convert style --to kohya -o style.safetensors
  lora-tool convert style.safetensors --to diffusers --reference BASE -o pytorch_lora_weights.safetensors
  lora-tool convert style --to gguf --reference BASE -o style.gguf
  lora-tool convert style --for vllm --reference BASE -o style-vllm
  lora-tool convert style --for ollama --reference BASE -o style-ollama
  lora-tool convert oft --as lora --rank 32 --reference BASE -o oft-as-lora")]
pub(crate) struct ConvertArgs {
    #[arg(value_parser = location())]
    adapter: PathBuf,
    #[arg(long, required_unless_present_any = ["program", "form"])]
    to: Option<String>,
    #[arg(long = "for", id = "program")]
    program: Option<String>,
    #[arg(long = "as", id = "form", value_parser = ["lora"], requires = "rank")]
    form: Option<String>,
    #[arg(long, requires = "form")]
    rank: Option<RankPolicy>,
    #[arg(long, value_parser = location())]
    reference: Option<PathBuf>,
    #[arg(short, long, value_parser = destination())]
    output: PathBuf,
    #[arg(long)]
    allow_loss: bool,
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    outcome: OutcomeArgs,
}

impl ConvertArgs {
    fn options(&self) -> Options {
        Options {
            adapter: self.adapter.clone(),
            to: self.to.clone().unwrap_or_default(),
            program: self.program.clone(),
            reference: self.reference.clone(),
            output: self.output.clone(),
            allow_loss: self.allow_loss,
            open: self.open.options(),
            force: self.outcome.force,
        }
    }

    fn as_lora(&self, rank: RankPolicy, session: &Session) -> Outcome {
        let (convert, threads) = (self.options(), session.threads);
        let plan = as_lora::plan(&as_lora::Options { convert, rank, threads })?;
        let report = match self.outcome.dry_run {
            true => plan.preview(&*session.steps("converting"))?,
            false => plan.run(&*session.steps("converting"))?,
        };
        self.answer(&report, &report.lost, render::as_lora::report, session)
    }

    /// Says what was lost, then what was done.
    fn answer<R: Serialize>(
        &self,
        report: &R,
        lost: &[String],
        text: fn(&R, bool) -> String,
        session: &Session,
    ) -> Outcome {
        let lost: Vec<String> = lost.iter().map(|loss| format!("lost: {loss}")).collect();
        session.warn(&lost);
        session.answer("convert", self.outcome.json, report, |report| {
            text(report, self.outcome.modules(session))
        })?;
        Ok(Answer::Yes)
    }
}

impl Verb for ConvertArgs {
    fn run(&self, session: &Session) -> Outcome {
        if let Some(rank) = self.rank.filter(|_| self.form.is_some()) {
            return self.as_lora(rank, session);
        }
        let convert = convert::plan(&self.options())?;
        let report = match self.outcome.dry_run {
            true => convert.preview()?,
            false => convert.run(&*session.steps("converting"))?,
        };
        self.answer(&report, &report.lost, render::convert::report, session)
    }
}
