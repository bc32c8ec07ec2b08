//! `check`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lora_tool::ops::check::{self, Options, Report, sarif};

use crate::cli::args::{OpenArgs, location};
use crate::cli::{Answer, Outcome, Session, Verb, render};

/// Examples, the programs, and what the exit code says.
fn after_help() -> String {
    let programs = check::programs().join(", ");
    format!(
        "\
Examples:
  lora-tool check style
  lora-tool check style --for vllm --against BASE
  lora-tool check style --for vllm@0.31 --max-rank 16
  lora-tool check style.safetensors --for comfyui --format json

Programs: {programs}

Exit codes: 0 it loads right (without --for: in one program at least), 1 it does not, 2 nobody knows."
    )
}

#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub(crate) struct CheckArgs {
    /// The adapter
    #[arg(value_parser = location())]
    adapter: PathBuf,
    /// The program that shall load it, and its version if not the newest known; all of them in a table
    /// without it
    #[arg(long = "for", value_name = "PROGRAM[@VERSION]")]
    program: Option<String>,
    /// The base that it shall be loaded on: its class, names and shapes have the last word
    #[arg(long, value_name = "BASE", value_parser = location())]
    against: Option<PathBuf>,
    /// The highest rank that the server is started for (vLLM's and SGLang's --max-lora-rank)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_rank: Option<u32>,
    #[command(flatten)]
    open: OpenArgs,
    /// What the report is printed as
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        conflicts_with = "json"
    )]
    format: Format,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

/// See [`CheckArgs::format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, for code scanning in CI
    Sarif,
}

impl Verb for CheckArgs {
    fn run(&self, session: &Session) -> Outcome {
        let report = check::run(&Options {
            adapter: self.adapter.clone(),
            program: self.program.clone(),
            against: self.against.clone(),
            max_rank: self.max_rank.map(|rank| rank as usize),
            open: self.open.options(),
        })?;
        self.print(&report, session)?;
        Ok(match report.answer {
            check::Answer::Yes => Answer::Yes,
            check::Answer::No => Answer::No,
            check::Answer::Unknown => Answer::Unknown,
        })
    }
}

impl CheckArgs {
    fn print(&self, report: &Report, session: &Session) -> Result<(), crate::cli::Failure> {
        if self.format == Format::Sarif {
            return session.raw(format!("{:#}\n", sarif(report)).as_bytes());
        }
        let json = self.json || self.format == Format::Json;
        session.answer("check", json, report, |report| {
            render::check::report(report, self.program.is_none(), session.verbose)
        })
    }
}
