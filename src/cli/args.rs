//! Arguments that several verbs share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use lora_tool::adapter::OpenOptions;
use lora_tool::adapter::orientation::OrientationRule;
use lora_tool::adapter::scale::ScaleOverride;
use lora_tool::format::location::{locate, output};
use lora_tool::format::{Access, Dtype, Staging};
use lora_tool::ops::check_output;
use lora_tool::ops::merge::{AdapterInput, Quantized, Rounding, Scales, Writing};
use lora_tool::{Error, ErrorKind, Result};
use regex::Regex;

use super::Session;
use super::page::{Made, is_page};

/// An input: a path, a place in a store, or the name of a repository that the local Hub cache holds.
pub(crate) fn location() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new()
        .try_map(|text| locate(text.as_ref()).map_err(|error| in_one_line(&error)))
}

/// An output: a path, or a place in a store.
pub(crate) fn destination() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new()
        .try_map(|text| output(text.as_ref()).map_err(|error| in_one_line(&error)))
}

/// clap's own message has no place for a hint.
fn in_one_line(error: &Error) -> String {
    match error.kind().hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

/// How adapters are read.
#[derive(Debug, Args)]
pub(crate) struct OpenArgs {
    #[arg(long, conflicts_with = "scale")]
    pub(crate) alpha: Option<f64>,
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) scale: Option<f64>,
    #[arg(long, requires = "alpha")]
    pub(crate) rslora: bool,
    #[arg(long)]
    pub(crate) convention: Option<String>,
    #[arg(long)]
    pub(crate) ignore_field: Vec<String>,
    #[arg(long)]
    pub(crate) residual_base: bool,
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
            ..OpenOptions::default()
        }
    }
}

/// Whether an adapter is written, and what is said of it.
#[derive(Debug, Args)]
pub(crate) struct OutcomeArgs {
    #[arg(short, long)]
    pub(crate) force: bool,
    #[arg(long)]
    modules: bool,
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    #[arg(long)]
    pub(crate) json: bool,
}

impl OutcomeArgs {
    /// Whether every module is listed.
    pub(crate) fn modules(&self, session: &Session) -> bool {
        self.modules || session.verbose
    }
}

/// Where a page goes.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// Write an HTML page with plots, which needs no network
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Replace an existing page
    #[arg(short, long, requires = "report")]
    force: bool,
}

impl PageArgs {
    /// Raises what would keep the page from being written, before the work for it begins.
    pub(crate) fn check<'a>(&self, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        self.report.as_ref().map_or(Ok(()), |path| check_output(path, inputs, self.replaces(path)))
    }

    /// Whether what is at the path may be replaced: a page of ours is made anew without being asked to.
    fn replaces(&self, path: &Path) -> bool {
        self.force || is_page(path)
    }

    /// Writes the page of some adapters, if one was asked for, and says so.
    pub(crate) fn write<'a>(
        &self,
        session: &Session,
        adapters: impl IntoIterator<Item = &'a Path>,
        page: impl FnOnce(&Made) -> String,
    ) -> Result<()> {
        let Some(path) = &self.report else { return Ok(()) };
        let made = Made::of(session.line(), adapters)?;
        let staging = Staging::file(path, self.replaces(path))?;
        staging.write("", page(&made).as_bytes())?;
        staging.commit()?;
        session.note(&format!("page written: {}", path.display()));
        Ok(())
    }
}

/// Gives each adapter its weight: from `-w`, from `path:0.7`, or 1.
pub(crate) fn weigh(adapters: &[OsString], weights: &[f64]) -> Result<Vec<AdapterInput>> {
    if !weights.is_empty() && weights.len() != adapters.len() {
        let (weights, adapters) = (weights.len(), adapters.len());
        return Err(ErrorKind::WeightCount { weights, adapters }.into());
    }
    let weigh = |(at, text): (usize, &OsString)| {
        // What is not UTF-8 is a path and no more.
        let split = text.to_str().map(split_weight);
        let (path, own) =
            split.map_or((text.as_os_str(), None), |(path, own)| (path.as_ref(), own));
        match (weights.get(at), own) {
            (Some(_), Some(_)) => {
                let reason = format!(
                    "`{}` carries a weight and so does -w; give one of them",
                    text.display()
                );
                Err(ErrorKind::BadOption(reason).into())
            }
            (given, own) => {
                let weight = given.copied().or(own).unwrap_or(1.0);
                Ok(AdapterInput::new(locate(path.as_ref())?, weight))
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

/// What to do where a quantised weight changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum QuantizedArg {
    /// Write all quantised weights as plain numbers, in --dtype or the config's dtype
    #[value(name = "16bit")]
    SixteenBit,
    /// Quantise those that change again, as they were; the others keep their bytes
    Requantize,
    /// Write those that change, and what is loaded as one with them, as plain numbers; the others keep their bytes
    Hybrid,
    /// Refuse the merge
    Refuse,
}

impl QuantizedArg {
    pub(crate) fn quantized(self) -> Quantized {
        match self {
            Self::SixteenBit => Quantized::SixteenBit,
            Self::Requantize => Quantized::Requantize,
            Self::Hybrid => Quantized::Hybrid,
            Self::Refuse => Quantized::Refuse,
        }
    }
}

/// Where the scales of weights come from that are quantised again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScalesArg {
    /// The new values, as the scheme's own writer makes them
    Fresh,
    /// The base
    Reuse,
}

/// How codes of weights that are quantised again are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoundingArg {
    /// To the nearest
    Nearest,
    /// Up or down at random, with chances that keep the mean
    Stochastic,
}

/// How weights are quantised again.
pub(crate) fn writing(scales: ScalesArg, rounding: RoundingArg, seed: u64) -> Writing {
    Writing {
        scales: match scales {
            ScalesArg::Fresh => Scales::Fresh,
            ScalesArg::Reuse => Scales::Reuse,
        },
        rounding: match rounding {
            RoundingArg::Nearest => Rounding::Nearest,
            RoundingArg::Stochastic => Rounding::Stochastic { seed },
        },
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

/// Which way round weights lie in the base.
#[derive(Debug, Args)]
pub(crate) struct OrientationArgs {
    #[arg(long)]
    orientation: Vec<OrientationRule>,
}

impl OrientationArgs {
    pub(crate) fn rules(&self) -> Vec<OrientationRule> {
        self.orientation.clone()
    }

    /// The same with how adapters are read.
    pub(crate) fn open(&self, open: &OpenArgs) -> OpenOptions {
        OpenOptions { orientation: self.rules(), ..open.options() }
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
}
