//! `convert`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::ops::convert::{self, Options};

use crate::cli::args::{OpenArgs, OutcomeArgs};
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool convert style --to kohya -o style.safetensors
  lora-tool convert style.safetensors --to diffusers --reference BASE -o pytorch_lora_weights.safetensors
  lora-tool convert style --to gguf --reference BASE -o style.gguf
  lora-tool convert style --for vllm --reference BASE -o style-vllm
  lora-tool convert style --for ollama --reference BASE -o style-ollama")]
pub(crate) struct ConvertArgs {
    /// The adapter, in any convention that is read
    adapter: PathBuf,
    /// The convention to write: peft, kohya, diffusers, comfyui, mlx, gguf
    #[arg(long, value_name = "CONVENTION", required_unless_present = "program")]
    to: Option<String>,
    /// A program that shall load the result, which says the convention and what else it needs: vllm,
    /// sglang, tensorrt-llm, lmdeploy, tgi, lorax, llama.cpp, ollama, mlx, peft, diffusers, comfyui,
    /// invokeai, openvino
    #[arg(long = "for", id = "program", value_name = "PROGRAM")]
    program: Option<String>,
    /// The base model: says where a flattened name's dots were, for llama.cpp the architecture, and for
    /// servers the names, shapes and experts that they look for
    #[arg(long, value_name = "BASE")]
    reference: Option<PathBuf>,
    /// Where the result goes: a directory for peft, mlx and ollama, a .gguf or .safetensors file else
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
}

impl Verb for ConvertArgs {
    fn run(&self, session: &Session) -> Outcome {
        let convert = convert::plan(&self.options())?;
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
