//! `merge`, and what `verify` shares with it.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use lora_tool::adapter::OpenOptions;
use lora_tool::adapter::scale::ScaleOverride;
use lora_tool::format::{Access, Dtype};
use lora_tool::ops::amount;
use lora_tool::ops::merge::{AdapterInput, Options};
use lora_tool::{ErrorKind, Result};
use regex::Regex;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool merge BASE ADAPTER -o OUT
  lora-tool merge BASE style task -w 1 0.5 -o OUT
  lora-tool merge BASE style:0.7 task:-0.2 -o OUT
  lora-tool merge BASE ADAPTER -o OUT --dtype bf16 --max-shard-size 5GB
  lora-tool merge BASE ADAPTER -o OUT --module-weight 'mlp=0.5' --dry-run")]
pub(crate) struct MergeArgs {
    /// The base checkpoint: a .safetensors file, an index, or a directory
    pub(crate) base: PathBuf,
    /// Adapters: PEFT directories or .safetensors files, each with its weight if need be (path:0.7)
    #[arg(required = true, value_name = "ADAPTER")]
    pub(crate) adapters: Vec<String>,
    /// Where the result goes: one file if it ends in .safetensors, else a directory
    #[arg(short, long, alias = "save_to", value_name = "OUT")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) how: MergeOptions,
    /// Largest shard, such as 5GB or 500MiB; the base's own shards by default
    #[arg(long, value_name = "SIZE|keep", default_value = "keep")]
    pub(crate) max_shard_size: ShardSize,
    /// Replace an existing OUT
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Check everything and print the plan; write nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Open the result again and compare it with an f64 recomputation
    #[arg(long)]
    pub(crate) verify: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What decides a merge's result, wherever it goes.
#[derive(Debug, Args)]
pub(crate) struct MergeOptions {
    /// One weight per adapter, in order; 1 each by default
    #[arg(short, long, alias = "ratios", value_name = "W", num_args = 1.., allow_negative_numbers = true)]
    pub(crate) weights: Vec<f64>,
    /// Dtype of the result's floating-point tensors
    #[arg(long, alias = "save_precision", value_enum, default_value = "keep")]
    pub(crate) dtype: DtypeArg,
    /// Multiply the weight of modules that match; the last match wins
    #[arg(long, value_name = "REGEX=W")]
    pub(crate) module_weight: Vec<ModuleWeight>,
    /// Merge only modules that match
    #[arg(long, value_name = "REGEX")]
    pub(crate) include: Option<Regex>,
    /// Leave out modules that match
    #[arg(long, value_name = "REGEX")]
    pub(crate) exclude: Option<Regex>,
    /// Merge the rest if some adapter tensors fit nothing in the base
    #[arg(long)]
    pub(crate) allow_unmatched: bool,
    /// Keep tied embeddings tied though the adapter changes only one side
    #[arg(long)]
    pub(crate) keep_tied: bool,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
}

/// How adapters are read.
#[derive(Debug, Args)]
pub(crate) struct OpenArgs {
    /// Alpha of a file that does not say it: scale = alpha/rank
    #[arg(long, value_name = "ALPHA", conflicts_with = "scale")]
    pub(crate) alpha: Option<f64>,
    /// Scale of a file that does not say it
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    pub(crate) scale: Option<f64>,
    /// With --alpha: scale = alpha/√rank
    #[arg(long, requires = "alpha")]
    pub(crate) rslora: bool,
    /// The adapters' key grammar, where the keys shall not decide: peft or kohya
    #[arg(long, value_name = "NAME")]
    pub(crate) convention: Option<String>,
    /// Take an unknown field of adapter_config.json as harmless
    #[arg(long, value_name = "NAME")]
    pub(crate) ignore_field: Vec<String>,
    /// BASE is the residual model that PiSSA or its like left for this adapter
    #[arg(long)]
    pub(crate) residual_base: bool,
    /// Read inputs instead of mapping them: for network file systems
    #[arg(long)]
    pub(crate) no_mmap: bool,
}

impl OpenArgs {
    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions {
            access: if self.no_mmap { Access::Read } else { Access::Map },
            convention: self.convention.clone(),
            scale: ScaleOverride { alpha: self.alpha, scale: self.scale, rslora: self.rslora },
            ignored_fields: self.ignore_field.clone(),
            residual_base: self.residual_base,
        }
    }
}

impl MergeOptions {
    /// The library's options; output and what only `merge` has are left at their defaults.
    pub(crate) fn options(&self, base: PathBuf, adapters: &[String]) -> Result<Options> {
        Ok(Options {
            base,
            adapters: weigh(adapters, &self.weights)?,
            open: self.open.options(),
            dtype: self.dtype.dtype(),
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            module_weights: self.module_weight.iter().map(ModuleWeight::parts).collect(),
            allow_unmatched: self.allow_unmatched,
            keep_tied: self.keep_tied,
            ..Options::default()
        })
    }
}

impl MergeArgs {
    pub(crate) fn options(&self, threads: usize) -> Result<Options> {
        Ok(Options {
            output: self.output.clone(),
            max_shard_size: self.max_shard_size.0,
            force: self.force,
            verify: self.verify,
            threads,
            ..self.how.options(self.base.clone(), &self.adapters)?
        })
    }
}

/// Gives each adapter its weight: from `-w`, from `path:0.7`, or 1.
pub(crate) fn weigh(adapters: &[String], weights: &[f64]) -> Result<Vec<AdapterInput>> {
    if !weights.is_empty() && weights.len() != adapters.len() {
        let (weights, adapters) = (weights.len(), adapters.len());
        return Err(ErrorKind::WeightCount { weights, adapters }.into());
    }
    let weigh = |(at, text): (usize, &String)| {
        let (path, own) = split_weight(text);
        match (weights.get(at), own) {
            (Some(_), Some(_)) => {
                let reason = format!("`{text}` carries a weight and so does -w; give one of them");
                Err(ErrorKind::BadOption(reason).into())
            }
            (given, own) => {
                let weight = given.copied().or(own).unwrap_or(1.0);
                Ok(AdapterInput { path: PathBuf::from(path), weight })
            }
        }
    };
    adapters.iter().enumerate().map(weigh).collect()
}

/// `path:0.7` → (path, 0.7): split at the last colon, only if a number follows.
fn split_weight(text: &str) -> (&str, Option<f64>) {
    match text.rsplit_once(':') {
        Some((path, number)) if !path.is_empty() => match number.parse() {
            Ok(weight) => (path, Some(weight)),
            Err(_) => (text, None),
        },
        _ => (text, None),
    }
}

/// A dtype for the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DtypeArg {
    /// Each tensor's own
    Keep,
    /// Single precision
    #[value(alias = "float", alias = "float32", alias = "fp32")]
    F32,
    /// Half precision
    #[value(alias = "fp16", alias = "float16")]
    F16,
    /// bfloat16
    #[value(alias = "bfloat16")]
    Bf16,
}

impl DtypeArg {
    pub(crate) fn dtype(self) -> Option<Dtype> {
        match self {
            Self::Keep => None,
            Self::F32 => Some(Dtype::F32),
            Self::F16 => Some(Dtype::F16),
            Self::Bf16 => Some(Dtype::BF16),
        }
    }
}

/// `REGEX=W`.
#[derive(Debug, Clone)]
pub(crate) struct ModuleWeight(Regex, f64);

impl ModuleWeight {
    pub(crate) fn parts(&self) -> (Regex, f64) {
        (self.0.clone(), self.1)
    }
}

impl FromStr for ModuleWeight {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (regex, weight) = text.rsplit_once('=').ok_or("it has no `=`")?;
        let weight: f64 = weight.parse().map_err(|_| format!("`{weight}` is no number"))?;
        if !weight.is_finite() {
            return Err(format!("`{weight}` is not finite"));
        }
        let regex = Regex::new(regex).map_err(|error| error.to_string())?;
        Ok(Self(regex, weight))
    }
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
    fn adapters_carry_weights_behind_the_last_colon() {
        assert_eq!(split_weight("a:0.7"), ("a", Some(0.7)));
        assert_eq!(split_weight("a:-1"), ("a", Some(-1.0)));
        assert_eq!(split_weight(r"C:\x"), (r"C:\x", None));
        assert_eq!(split_weight("a:b:2"), ("a:b", Some(2.0)));
        assert_eq!(split_weight(":1"), (":1", None));
    }

    #[test]
    fn sizes() {
        assert_eq!("5GB".parse(), Ok(ShardSize(Some(5_000_000_000))));
        assert_eq!("1.5KiB".parse(), Ok(ShardSize(Some(1536))));
        assert!("5 parsecs".parse::<ShardSize>().is_err());
        assert!("0".parse::<ShardSize>().is_err());
        assert!("GB".parse::<ShardSize>().is_err());
    }
}
