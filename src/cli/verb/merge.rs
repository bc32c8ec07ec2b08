//! `merge`, and what `verify` shares with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use lora_tool::error::ModelError;
use lora_tool::format::{Access, Checkpoint};
use lora_tool::ops::merge::{
    self, LeastSurvival, Merge, Options, TOUCHED, TRAINED_NAMES, Touched, Types,
};
use lora_tool::ops::shared::options::GGUF_TYPES;
use lora_tool::ops::{amount, named_base};
use lora_tool::{Error, Result};
use regex::Regex;

use super::shared_work::PlanArgs;
use crate::cli::args::{
    DtypeArg, ModuleWeight, OpenArgs, OrientationArgs, QuantizedArg, RoundingArg, ScalesArg,
    destination, location, weigh, writing,
};
use crate::cli::method_args::{CompatArg, MethodParams};
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(
    override_usage = "lora-tool merge [OPTIONS] --output <OUT> <BASE> <ADAPTER>...",
    after_help = "\
Examples:
  lora-tool merge BASE ADAPTER -o OUT
  lora-tool merge BASE style task -w 1 0.5 -o OUT
  lora-tool merge BASE style:0.7 task:-0.2 -o OUT
  lora-tool merge BASE ADAPTER -o OUT --dtype bf16 --max-shard-size 5GB
  lora-tool merge BASE-FP8 ADAPTER -o OUT --dtype bf16
  lora-tool merge BASE-INT4 ADAPTER -o OUT --quantized hybrid --touched int8
  lora-tool merge BASE-16BIT ADAPTER -o OUT --quantize-like BASE-INT4
  lora-tool merge BASE-INT4 ADAPTER -o OUT --quantized requantize --residual OUT-LOST
  lora-tool merge BASE-16BIT QLORA-ADAPTER -o OUT --as-trained nf4-nested
  lora-tool merge base-Q4_K.gguf ADAPTER -o OUT.safetensors
  lora-tool merge base-Q4_K.gguf ADAPTER -o OUT.gguf
  lora-tool merge base-Q4_K.gguf ADAPTER -o OUT --reference BASE
  lora-tool merge BASE ADAPTER -o OUT.gguf --reference base-Q4_K.gguf
  lora-tool merge BASE ADAPTER -o OUT --receipt OUT.receipt
  lora-tool merge BASE ADAPTER -o OUT --card
  lora-tool merge BASE ADAPTER -o OUT --module-weight 'mlp=0.5' --dry-run
  lora-tool merge BASE ADAPTER -o OUT --plan plan.json --workers 16
  lora-tool merge BASE tuned-a tuned-b style -o OUT --method ties --density 0.5"
)]
pub(crate) struct MergeArgs {
    #[arg(required_unless_present_any = ["model", "models"])]
    #[arg(value_parser = location())]
    pub(crate) base: Option<PathBuf>,
    #[arg(required_unless_present_any = ["models", "base"])]
    pub(crate) adapters: Vec<OsString>,
    /// The base, as kohya's, musubi's and MLX's scripts have it
    #[arg(
        long,
        aliases = ["sd-model", "flux-model", "base-model", "dit"],
        hide = true,
        value_name = "BASE",
        conflicts_with_all = ["base", "adapters"],
        requires = "models"
    )]
    #[arg(value_parser = location())]
    model: Option<PathBuf>,
    /// The adapters, as they have them
    #[arg(
        long,
        aliases = ["lora-weight", "adapter-path", "lora"],
        hide = true,
        num_args = 1..,
        value_name = "ADAPTER",
        conflicts_with = "adapters"
    )]
    models: Vec<OsString>,
    #[arg(short, long, value_parser = destination())]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) how: MergeOptions,
    #[arg(long, default_value = "keep")]
    pub(crate) max_shard_size: ShardSize,
    #[arg(short, long)]
    pub(crate) force: bool,
    #[arg(long, conflicts_with = "plan")]
    pub(crate) resume: bool,
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    #[arg(long)]
    pub(crate) verify: bool,
    #[arg(long)]
    pub(crate) receipt: Option<PathBuf>,
    #[arg(long)]
    pub(crate) residual: Option<PathBuf>,
    #[arg(long)]
    pub(crate) residual_rank: Option<usize>,
    #[arg(long)]
    no_provenance: bool,
    #[arg(long)]
    card: bool,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    #[arg(long)]
    pub(crate) json: bool,
}

/// What decides a merge's result, wherever it goes.
#[derive(Debug, Args)]
pub(crate) struct MergeOptions {
    #[arg(short, long, num_args = 1.., allow_negative_numbers = true)]
    pub(crate) weights: Vec<f64>,
    #[arg(long)]
    pub(crate) method: Option<String>,
    #[arg(long, value_enum)]
    pub(crate) compat: Option<CompatArg>,
    #[command(flatten)]
    pub(crate) params: MethodParams,
    #[arg(long, value_enum, default_value = "keep")]
    pub(crate) dtype: DtypeArg,
    #[arg(long, value_enum, default_value = "16bit")]
    pub(crate) quantized: QuantizedArg,
    #[arg(long, default_value = "16bit", value_parser = PossibleValuesParser::new(TOUCHED.map(|(name, _)| name)).map(|name| touched(&name)))]
    pub(crate) touched: Touched,
    #[arg(long, value_parser = location())]
    pub(crate) quantize_like: Option<PathBuf>,
    #[arg(long, value_parser = PossibleValuesParser::new(TRAINED_NAMES))]
    pub(crate) as_trained: Option<String>,
    #[arg(long, value_enum, default_value = "fresh")]
    pub(crate) scales: ScalesArg,
    #[arg(long, value_enum, default_value = "nearest")]
    pub(crate) rounding: RoundingArg,
    #[arg(long, default_value_t = 0)]
    pub(crate) rounding_seed: u64,
    #[arg(long, default_value_t = 0.9)]
    pub(crate) min_survival: f64,
    #[arg(long, value_parser = PossibleValuesParser::new(GGUF_TYPES).try_map(|name| name.parse::<Types>()))]
    pub(crate) types: Option<Types>,
    #[arg(long, value_parser = location())]
    pub(crate) reference: Option<PathBuf>,
    #[arg(long)]
    pub(crate) module_weight: Vec<ModuleWeight>,
    #[arg(long)]
    pub(crate) include: Option<Regex>,
    #[arg(long)]
    pub(crate) exclude: Option<Regex>,
    #[arg(long)]
    pub(crate) allow_unmatched: bool,
    #[arg(long)]
    pub(crate) add_new: bool,
    #[arg(long)]
    pub(crate) keep_tied: bool,
    #[command(flatten)]
    orientation: OrientationArgs,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
}

impl MergeOptions {
    /// The library's options; output and what only `merge` has are left at their defaults.
    pub(crate) fn options(&self, base: PathBuf, adapters: &[OsString]) -> Result<Options> {
        Ok(Options {
            base,
            adapters: weigh(adapters, &self.weights)?,
            open: self.orientation.open(&self.open),
            method: self.method.clone(),
            params: self.params.0.clone(),
            compat: self.compat.map(CompatArg::compat),
            dtype: self.dtype.dtype(),
            quantized: self.quantized.quantized(),
            touched: self.touched,
            quantize_like: self.quantize_like.clone(),
            as_trained: self.as_trained.clone(),
            writing: writing(self.scales, self.rounding, self.rounding_seed),
            min_survival: LeastSurvival(self.min_survival),
            types: self.types,
            reference: self.reference.clone(),
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            module_weights: self.module_weight.iter().map(ModuleWeight::parts).collect(),
            allow_unmatched: self.allow_unmatched,
            add_new: self.add_new,
            keep_tied: self.keep_tied,
            ..Options::default()
        })
    }
}

/// What a name of the list stands for.
fn touched(name: &str) -> Touched {
    let found = TOUCHED.iter().find(|(known, _)| *known == name);
    found.map(|(_, touched)| *touched).unwrap_or_default()
}

impl MergeArgs {
    /// kohya's scripts make one adapter of several where no base is named.
    fn without_base(&self) -> Error {
        let words = |numbers: &[f64]| numbers.iter().map(f64::to_string).collect::<Vec<_>>();
        let mut line = ["lora-tool", "combine"].map(str::to_owned).to_vec();
        line.extend(self.models.iter().map(|model| model.display().to_string()));
        if !self.how.weights.is_empty() {
            line.push("-w".to_owned());
            line.extend(words(&self.how.weights));
        }
        line.extend(["-o".to_owned(), self.output.display().to_string()]);
        let hint = format!(
            "to make one adapter of several: {}; to merge them into a base, name it first",
            line.join(" ")
        );
        ModelError::NoBase { hint }.into()
    }

    /// The base and the adapters, where the base may be left out because the adapters' configs name it.
    fn base_or_named(
        &self,
        base: PathBuf,
        adapters: &[OsString],
    ) -> Result<(PathBuf, Vec<OsString>)> {
        let all: Vec<OsString> =
            std::iter::once(base.clone().into()).chain(adapters.to_vec()).collect();
        let weighed = weigh(&all, &[])?;
        let paths: Vec<&Path> = weighed.iter().map(|input| input.path.as_path()).collect();
        let is_adapter =
            paths.first().is_some_and(|path| path.join("adapter_config.json").exists());
        match named_base(&paths) {
            Ok(named) if adapters.is_empty() || is_adapter => Ok((named, all)),
            Err(_)
                if adapters.is_empty()
                    && !is_adapter
                    && Checkpoint::open(&base, Access::Map).is_ok() =>
            {
                Err(ModelError::NoAdapter { base }.into())
            }
            Err(error) if adapters.is_empty() => Err(error),
            _ => Ok((base, adapters.to_vec())),
        }
    }

    pub(crate) fn options(&self, threads: usize) -> Result<Options> {
        let base = self.base.as_ref().or(self.model.as_ref());
        let base = base.cloned().ok_or_else(|| self.without_base())?;
        let adapters = if self.models.is_empty() { &self.adapters } else { &self.models };
        let (base, adapters) = &self.base_or_named(base, adapters)?;
        let base = base.clone();
        Ok(Options {
            output: self.output.clone(),
            max_shard_size: self.max_shard_size.0,
            force: self.force,
            resume: self.resume,
            verify: self.verify,
            receipt: self.receipt.clone(),
            provenance: !self.no_provenance,
            card: self.card,
            residual: self.residual.clone(),
            residual_rank: self.residual_rank,
            threads,
            ..self.how.options(base, adapters)?
        })
    }
}

impl Verb for MergeArgs {
    fn run(&self, session: &Session) -> Outcome {
        let merge = merge::plan(&self.options(session.threads)?)?;
        perform("merge", merge, (&self.plan, self.dry_run), self.json, session)
    }
}

/// Runs what was planned, or only shows it, or writes it down.
pub(crate) fn perform(
    command: &'static str,
    merge: Merge,
    (plan, dry_run): (&PlanArgs, bool),
    json: bool,
    session: &Session,
) -> Outcome {
    if let Some(file) = &plan.plan {
        let report = merge.write_plan(file, plan.workers)?;
        session.warn(&report.warnings);
        session.answer(command, json, &report, render::work::written)?;
        return Ok(Answer::Yes);
    }
    if dry_run {
        let report = merge.preview();
        session.warn(&report.warnings);
        session.answer(command, json, &report, |_| {
            render::merge::plan(&merge.plan, session.verbose)
        })?;
        return Ok(Answer::Yes);
    }
    for text in merge.plan.prediction.iter().flat_map(render::merge::prediction) {
        session.note(&text);
    }
    let report = merge.run(&*session.bytes("merging"))?;
    session.warn(&report.warnings);
    session
        .answer(command, json, &report, |report| render::merge::report(report, session.verbose))?;
    let good = report.verification.as_ref().is_none_or(|verification| verification.ok);
    Ok(Answer::from(good))
}

/// A size in bytes, or `keep`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardSize(Option<u64>);

impl FromStr for ShardSize {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "keep" {
            return Ok(Self(None));
        }
        amount(text, true).map(|size| Self(Some(size)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!("5GB".parse(), Ok(ShardSize(Some(5_000_000_000))));
        assert_eq!("1.5KiB".parse(), Ok(ShardSize(Some(1536))));
        assert!("5 parsecs".parse::<ShardSize>().is_err());
        assert!("0".parse::<ShardSize>().is_err());
        assert!("GB".parse::<ShardSize>().is_err());
    }
}
