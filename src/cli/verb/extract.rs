//! `extract`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lora_tool::format::Access;
use lora_tool::ops::extract::{self, RankChoice};
use regex::Regex;

use super::shared_work::PlanArgs;
use crate::cli::args::{DtypeArg, OrientationArgs, OutcomeArgs, destination, location};
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool extract BASE TUNED -o adapter --rank 32
  lora-tool extract BASE TUNED -o adapter --rank auto
  lora-tool extract BASE TUNED -o adapter --rank 32 --plan plan.json --workers 16
  lora-tool extract BASE TUNED -o adapter --rank energy:0.95 --max-rank 128 --full-norms
  lora-tool extract sd.safetensors tuned.safetensors -o style.safetensors --rank size:64MiB --conv-rank 8")]
pub(crate) struct ExtractArgs {
    #[arg(required_unless_present = "model_org", value_parser = location())]
    base: Option<PathBuf>,
    #[arg(required_unless_present = "model_tuned", value_parser = location())]
    tuned: Option<PathBuf>,
    /// The same, as kohya's scripts have it
    #[arg(long, alias = "base-model", hide = true, conflicts_with = "base", value_parser = location())]
    model_org: Option<PathBuf>,
    /// The same, as kohya's scripts have it
    #[arg(long, alias = "model", hide = true, conflicts_with = "tuned", value_parser = location())]
    model_tuned: Option<PathBuf>,
    #[arg(short, long, value_parser = destination())]
    output: PathBuf,
    #[arg(long)]
    rank: RankChoice,
    #[arg(long)]
    conv_rank: Option<RankChoice>,
    #[arg(long)]
    max_rank: Option<usize>,
    #[arg(long)]
    embeddings: bool,
    #[arg(long)]
    full_norms: bool,
    #[arg(long, default_value_t = 0.0)]
    min_diff: f32,
    #[arg(long)]
    exact: bool,
    #[arg(long)]
    compat: Option<CompatArg>,
    #[arg(long)]
    clamp_quantile: Option<f64>,
    #[arg(long)]
    include: Option<Regex>,
    #[arg(long)]
    exclude: Option<Regex>,
    #[arg(long, value_enum, default_value = "keep")]
    dtype: DtypeArg,
    #[arg(long)]
    to: Option<String>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long)]
    no_mmap: bool,
    #[command(flatten)]
    orientation: OrientationArgs,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    outcome: OutcomeArgs,
}

/// A peer to choose modules like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompatArg {
    /// kohya's extract_lora_from_models.py: kernels only with --conv-rank
    Kohya,
}

impl ExtractArgs {
    fn options(&self, threads: usize) -> extract::Options {
        let path = |given: &Option<PathBuf>, kohya: &Option<PathBuf>| {
            given.clone().or_else(|| kohya.clone()).unwrap_or_default()
        };
        extract::Options {
            base: path(&self.base, &self.model_org),
            tuned: path(&self.tuned, &self.model_tuned),
            output: self.output.clone(),
            rank: self.rank,
            conv_rank: self.conv_rank,
            max_rank: self.max_rank,
            embeddings: self.embeddings,
            full_norms: self.full_norms,
            min_diff: self.min_diff,
            exact: self.exact,
            kohya: self.compat == Some(CompatArg::Kohya),
            clamp_quantile: self.clamp_quantile,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            dtype: self.dtype.dtype(),
            to: self.to.clone(),
            orientation: self.orientation.rules(),
            access: if self.no_mmap { Access::Read } else { Access::Map },
            seed: self.seed,
            force: self.outcome.force,
            threads,
        }
    }
}

impl Verb for ExtractArgs {
    fn run(&self, session: &Session) -> Outcome {
        let extract = extract::plan(&self.options(session.threads))?;
        let (json, modules) = (self.outcome.json, self.outcome.modules(session));
        if let Some(file) = &self.plan.plan {
            let report = extract.write_plan(file, self.plan.workers)?;
            session.answer("extract", json, &report, render::work::written)?;
            return Ok(Answer::Yes);
        }
        let progress = session.bytes("extracting");
        let report = match self.outcome.dry_run {
            true => extract.preview(&*progress)?,
            false => extract.run(&*progress)?,
        };
        drop(progress);
        session.warn(&report.warnings);
        session
            .answer("extract", json, &report, |report| render::extract::report(report, modules))?;
        Ok(Answer::Yes)
    }
}
