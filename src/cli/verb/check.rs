//! `check`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::ops::check::{self, Options};

use crate::cli::args::OpenArgs;
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool check style --for vllm
  lora-tool check style.safetensors --for comfyui --json")]
pub(crate) struct CheckArgs {
    /// The adapter
    adapter: PathBuf,
    /// The program that shall load it: peft, vllm, llama.cpp, comfyui, diffusers, mlx
    #[arg(long = "for", value_name = "PROGRAM")]
    program: String,
    /// A base that its modules shall fit
    #[arg(long, value_name = "BASE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    open: OpenArgs,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Verb for CheckArgs {
    fn run(&self, session: &Session) -> Outcome {
        let report = check::run(&Options {
            adapter: self.adapter.clone(),
            program: self.program.clone(),
            against: self.against.clone(),
            open: self.open.options(),
        })?;
        session.answer("check", self.json, &report, render::check::report)?;
        Ok(Answer::from(report.ok))
    }
}
