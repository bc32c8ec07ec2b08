//! `extract`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lora_tool::format::Access;
use lora_tool::ops::extract::{self, RankChoice};
use regex::Regex;

use crate::cli::args::{DtypeArg, OrientationArgs, OutcomeArgs};
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool extract BASE TUNED -o adapter --rank 32
  lora-tool extract BASE TUNED -o adapter --rank auto
  lora-tool extract BASE TUNED -o adapter --rank energy:0.95 --max-rank 128 --full-norms
  lora-tool extract sd.safetensors tuned.safetensors -o style.safetensors --rank size:64MiB --conv-rank 8")]
pub(crate) struct ExtractArgs {
    /// The base checkpoint: a file, an index, or a directory
    #[arg(required_unless_present = "model_org")]
    base: Option<PathBuf>,
    /// The fine-tuned checkpoint
    #[arg(required_unless_present = "model_tuned")]
    tuned: Option<PathBuf>,
    /// The same, as kohya's scripts have it
    #[arg(long, alias = "base-model", hide = true, conflicts_with = "base")]
    model_org: Option<PathBuf>,
    /// The same, as kohya's scripts have it
    #[arg(long, alias = "model", hide = true, conflicts_with = "tuned")]
    model_tuned: Option<PathBuf>,
    /// Where the adapter goes: a path that ends in .safetensors gives one file in kohya's convention,
    /// any other a directory in PEFT's
    #[arg(short, long, aliases = ["save-to", "out-path"], value_name = "OUT")]
    output: PathBuf,
    /// Rank policy: auto (the rank of a merged adapter), 16, lossless, energy:0.99, fro:0.9,
    /// nuclear:0.9, ratio:10, abs:1e-3, error:0.05, size:32MiB, params:2M
    #[arg(long, alias = "dim", value_name = "POLICY")]
    rank: RankChoice,
    /// Rank policy of convolutions with a kernel; as --rank by default
    #[arg(long, alias = "conv-dim", value_name = "POLICY")]
    conv_rank: Option<RankChoice>,
    /// The highest rank of any module
    #[arg(long, value_name = "R")]
    max_rank: Option<usize>,
    /// Make modules of embeddings too
    #[arg(long)]
    embeddings: bool,
    /// Store norms, biases and embeddings that changed, where the convention can
    #[arg(long)]
    full_norms: bool,
    /// Leave out modules none of whose elements differs by more than this
    #[arg(long, value_name = "X", default_value_t = 0.0, hide_default_value = true)]
    min_diff: f32,
    /// Decompose whole differences, in f64: slow, and needs room for one at a time on each thread
    #[arg(long)]
    exact: bool,
    /// Choose modules as a peer does
    #[arg(long, value_name = "PEER")]
    compat: Option<CompatArg>,
    /// Hold the factors within ± this quantile of their values, as kohya's script does by default
    #[arg(long, value_name = "Q")]
    clamp_quantile: Option<f64>,
    /// Only tensors whose name matches
    #[arg(long, value_name = "REGEX")]
    include: Option<Regex>,
    /// No tensors whose name matches
    #[arg(long, value_name = "REGEX")]
    exclude: Option<Regex>,
    /// Dtype of the factors; f32 by default
    #[arg(
        long,
        alias = "save-precision",
        value_enum,
        value_name = "DTYPE",
        default_value = "keep",
        hide_default_value = true
    )]
    dtype: DtypeArg,
    /// The convention to write: peft, kohya, diffusers, comfyui, mlx, gguf
    #[arg(long, value_name = "CONVENTION")]
    to: Option<String>,
    /// Chooses the random columns of the decomposition
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    seed: u64,
    /// Read inputs instead of mapping them: for network file systems
    #[arg(long)]
    no_mmap: bool,
    #[command(flatten)]
    orientation: OrientationArgs,
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
        if self.outcome.dry_run {
            session.answer("extract", json, &extract.plan, |plan| {
                render::extract::plan(plan, modules)
            })?;
            return Ok(Answer::Yes);
        }
        let report = extract.run(&*session.bytes("extracting"))?;
        session.warn(&report.warnings);
        session
            .answer("extract", json, &report, |report| render::extract::report(report, modules))?;
        Ok(Answer::Yes)
    }
}
