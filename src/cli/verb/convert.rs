//! `convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lora_tool::ops::convert::{self, For, Options};
use lora_tool::{ErrorKind, Result};

use crate::cli::args::{OpenArgs, OutcomeArgs};
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool convert style --to kohya -o style.safetensors
  lora-tool convert style.safetensors --to diffusers --reference BASE -o pytorch_lora_weights.safetensors
  lora-tool convert style --to gguf --reference BASE -o style.gguf
  lora-tool convert style --for vllm -o style-vllm")]
pub(crate) struct ConvertArgs {
    /// The adapter, in any convention that is read
    adapter: PathBuf,
    /// The convention to write: peft, kohya, diffusers, comfyui, mlx, gguf
    #[arg(long, value_name = "CONVENTION", required_unless_present = "program")]
    to: Option<String>,
    /// A program that shall load the result; it implies the convention
    #[arg(long = "for", id = "program", value_enum, value_name = "PROGRAM")]
    program: Option<Program>,
    /// The base model: says where a flattened name's dots were, and for llama.cpp the architecture
    #[arg(long, value_name = "BASE")]
    reference: Option<PathBuf>,
    /// Where the result goes: a directory for peft and mlx, a .gguf or .safetensors file for others
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Leave out what the target cannot hold
    #[arg(long)]
    allow_loss: bool,
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    outcome: OutcomeArgs,
}

/// See [`ConvertArgs::program`].
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Program {
    /// One rank, one scale, factors only
    Vllm,
    /// PEFT itself
    Peft,
    /// llama.cpp and what is built on it
    #[value(name = "llama.cpp")]
    LlamaCpp,
    /// ComfyUI, whose dotted names it takes
    Comfyui,
    /// diffusers' pipelines
    Diffusers,
    /// mlx-lm
    Mlx,
}

impl Program {
    fn convention(self) -> &'static str {
        match self {
            Self::Vllm | Self::Peft => "peft",
            Self::LlamaCpp => "gguf",
            Self::Comfyui => "comfyui",
            Self::Diffusers => "diffusers",
            Self::Mlx => "mlx",
        }
    }
}

impl ConvertArgs {
    fn options(&self) -> Result<Options> {
        let implied = self.program.map(Program::convention);
        let asked = self.to.as_deref();
        if let (Some(asked), Some(implied)) = (asked, implied)
            && asked != implied
        {
            let reason = format!("that program loads {implied}, not {asked}; leave out --to");
            return Err(ErrorKind::BadOption(reason).into());
        }
        Ok(Options {
            adapter: self.adapter.clone(),
            to: asked.or(implied).unwrap_or_default().to_owned(),
            program: matches!(self.program, Some(Program::Vllm)).then_some(For::Vllm),
            reference: self.reference.clone(),
            output: self.output.clone(),
            allow_loss: self.allow_loss,
            open: self.open.options(),
            force: self.outcome.force,
        })
    }
}

impl Verb for ConvertArgs {
    fn run(&self, session: &Session) -> Outcome {
        let convert = convert::plan(&self.options()?)?;
        let report = match self.outcome.dry_run {
            true => convert.report,
            false => convert.run(&*session.steps("converting"))?,
        };
        let lost: Vec<String> = report.lost.iter().map(|loss| format!("lost: {loss}")).collect();
        session.warn(&lost);
        session.answer("convert", self.outcome.json, &report, |report| {
            render::convert::report(report, self.outcome.dry_run, self.outcome.modules(session))
        })?;
        Ok(Answer::Yes)
    }
}
