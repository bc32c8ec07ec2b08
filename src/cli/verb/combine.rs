//! `combine`, and what `resize` shares with it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lora_tool::Result;
use lora_tool::ops::combine::{self, Combine, RankPolicy};
use regex::Regex;

use crate::cli::args::{
    DtypeArg, ModuleWeight, OpenArgs, OutcomeArgs, destination, location, weigh,
};
use crate::cli::method_args::{CompatArg, MethodParams, SpaceArg};
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(
    override_usage = "lora-tool combine [OPTIONS] --output <OUT> <ADAPTER>...",
    after_help = "\
Examples:
  lora-tool combine style task -w 0.7 0.3 -o OUT
  lora-tool combine style:0.7 task:-0.2 -o OUT --rank 16
  lora-tool combine a.safetensors b.safetensors -o c.safetensors --rank size:32MiB
  lora-tool combine style task -o OUT --method cat
  lora-tool combine style task -o OUT --method ties --density 0.3 --rank 16"
)]
pub(crate) struct CombineArgs {
    #[arg(required_unless_present = "models")]
    adapters: Vec<OsString>,
    /// The same, as kohya's scripts have it
    #[arg(long, hide = true, num_args = 1.., value_name = "ADAPTER", conflicts_with = "adapters")]
    models: Vec<OsString>,
    #[arg(short, long, num_args = 1.., allow_negative_numbers = true)]
    weights: Vec<f64>,
    #[arg(long)]
    method: Option<String>,
    #[arg(long, value_enum)]
    compat: Option<CompatArg>,
    #[arg(long, value_enum)]
    space: Option<SpaceArg>,
    #[command(flatten)]
    params: MethodParams,
    #[arg(long)]
    rank: Option<RankPolicy>,
    #[arg(long)]
    conv_rank: Option<RankPolicy>,
    #[command(flatten)]
    how: CombineOptions,
    #[arg(long)]
    module_weight: Vec<ModuleWeight>,
    #[arg(long, allow_hyphen_values = true)]
    lbw: Vec<BlockList>,
    #[arg(long)]
    title: Option<String>,
    #[arg(long)]
    trigger: Option<String>,
    #[arg(long)]
    card: bool,
    #[arg(long)]
    allow_disjoint: bool,
    #[arg(long, value_enum)]
    on_conflict: Option<ConflictArg>,
}

/// What `combine` and `resize` share.
#[derive(Debug, Args)]
pub(crate) struct CombineOptions {
    #[arg(short, long, required = true, value_parser = destination())]
    output: Option<PathBuf>,
    #[arg(long)]
    max_rank: Option<usize>,
    #[arg(long)]
    uniform: bool,
    #[arg(long)]
    include: Option<Regex>,
    #[arg(long)]
    exclude: Option<Regex>,
    #[arg(long, value_enum, default_value = "keep")]
    dtype: DtypeArg,
    #[arg(long)]
    to: Option<String>,
    #[arg(long, value_parser = location())]
    reference: Option<PathBuf>,
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    pub(crate) outcome: OutcomeArgs,
}

impl CombineOptions {
    pub(crate) fn options(&self, threads: usize) -> combine::Options {
        combine::Options {
            output: self.output.clone().unwrap_or_default(),
            open: self.open.options(),
            max_rank: self.max_rank,
            uniform: self.uniform,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            dtype: self.dtype.dtype(),
            to: self.to.clone(),
            reference: self.reference.clone(),
            force: self.outcome.force,
            threads,
            ..combine::Options::default()
        }
    }

    /// Runs what was planned, or only shows it.
    pub(crate) fn run(
        &self,
        command: &'static str,
        combine: &Combine,
        session: &Session,
    ) -> Outcome {
        perform(command, combine, &self.outcome, session)
    }
}

/// Runs what was planned, or only shows it.
pub(crate) fn perform(
    command: &'static str,
    combine: &Combine,
    outcome: &OutcomeArgs,
    session: &Session,
) -> Outcome {
    let (json, modules) = (outcome.json, outcome.modules(session));
    let progress = session.steps(if command == "resize" { "resizing" } else { "combining" });
    let report = match outcome.dry_run {
        true => combine.preview(&*progress)?,
        false => combine.run(&*progress)?,
    };
    drop(progress);
    session.warn(&report.warnings);
    session.answer(command, json, &report, |report| {
        render::combine::report(report, command, modules)
    })?;
    Ok(Answer::Yes)
}

impl Verb for CombineArgs {
    fn run(&self, session: &Session) -> Outcome {
        self.how.run("combine", &combine::plan(&self.options(session.threads)?)?, session)
    }
}

impl CombineArgs {
    fn options(&self, threads: usize) -> Result<combine::Options> {
        let adapters = if self.models.is_empty() { &self.adapters } else { &self.models };
        Ok(combine::Options {
            adapters: weigh(adapters, &self.weights)?,
            method: self.method.clone(),
            compat: self.compat.map(CompatArg::compat),
            space: self.space.map(SpaceArg::space),
            params: self.params.0.clone(),
            rank: self.rank,
            conv_rank: self.conv_rank,
            module_weights: self.module_weight.iter().map(ModuleWeight::parts).collect(),
            block_weights: self.lbw.iter().map(|list| list.0.clone()).collect(),
            title: self.title.clone(),
            trigger: self.trigger.clone(),
            card: self.card,
            allow_disjoint: self.allow_disjoint,
            on_conflict: self.on_conflict.map(|what| match what {
                ConflictArg::First => combine::OnConflict::First,
                ConflictArg::Average => combine::OnConflict::Average,
                ConflictArg::Drop => combine::OnConflict::Drop,
            }),
            ..self.how.options(threads)
        })
    }
}

/// Whose replaced tensors to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConflictArg {
    /// The first adapter's
    First,
    /// The mean of all
    Average,
    /// None
    Drop,
}

/// A list of numbers, with or without kohya's brackets.
#[derive(Debug, Clone, PartialEq)]
struct BlockList(Vec<f64>);

impl std::str::FromStr for BlockList {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
        let number = |part: &str| part.trim().parse().map_err(|_| format!("`{part}` is no number"));
        inner.split(',').map(number).collect::<std::result::Result<_, _>>().map(Self)
    }
}
