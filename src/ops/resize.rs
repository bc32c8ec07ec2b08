//! resize: one adapter → lower or fitted rank. The mathematics is `combine` of one adapter; this file
//! only shapes its options.

use std::path::PathBuf;

use serde::Serialize;

use super::Progress;
use super::check::vllm_rank;
use super::combine::{self, Choice, Combine, ConvScope};
use crate::error::{Error, ErrorKind, Result};
use crate::math::RankPolicy;
use crate::ops::shared::inputs::AdapterInput;

/// What to resize, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The adapter.
    pub adapter: PathBuf,
    /// Rank policy.
    pub rank: RankPolicy,
    /// Everything that `combine` takes too; its adapters, method and rank are set here.
    pub combine: combine::Options,
}

/// What is said of ranks.
#[derive(Debug, Clone, Default)]
pub struct Ranks {
    /// The rank policy.
    pub rank: Option<RankPolicy>,
    /// That of convolutions; the same if `None`.
    pub conv_rank: Option<RankPolicy>,
    /// kohya's criterion and its number; the ranks are caps then.
    pub dynamic: Option<(String, f64)>,
}

impl Options {
    /// With the ranks that are asked for.
    ///
    /// # Errors
    /// Two criteria, one that there is not, or none.
    pub fn new(adapter: PathBuf, ranks: &Ranks, mut combine: combine::Options) -> Result<Self> {
        let bad = |reason: String| Error::from(ErrorKind::BadOption(reason));
        let Some((method, parameter)) = &ranks.dynamic else {
            combine.conv_rank = ranks.conv_rank;
            let rank = ranks.rank.ok_or_else(|| bad("resize needs a rank".to_owned()))?;
            return Ok(Self { adapter, rank, combine });
        };
        let rank = format!("{method}:{parameter}").parse().map_err(bad)?;
        // kohya's --new_rank and --new_conv_rank cap what its criterion finds, each for its kind of
        // module; the rank of convolutions is that of the others where none is given.
        let most = combine.max_rank;
        let cap = |asked: Option<RankPolicy>, option: &str| match asked {
            Some(RankPolicy::Fixed(cap)) => Ok(Some(most.map_or(cap, |most| most.min(cap)))),
            None => Ok(None),
            Some(other) => Err(bad(format!(
                "--dynamic-method and {option} {other} are two criteria; give one"
            ))),
        };
        combine.max_rank = cap(ranks.rank, "--rank")?.or(most);
        combine.conv_max_rank = cap(ranks.conv_rank, "--conv-rank")?;
        combine.conv_rank = None;
        Ok(Self { adapter, rank, combine })
    }
}

/// Opens the adapter and decides the result's modules.
///
/// # Errors
/// As [`combine::plan`].
pub fn plan(options: &Options) -> Result<Combine> {
    combine::plan(&combine::Options {
        adapters: vec![AdapterInput::new(&options.adapter, 1.0)],
        method: None,
        compat: None,
        rank: Some(options.rank),
        conv_scope: ConvScope::All,
        keep_scale: true,
        ..options.combine.clone()
    })
}

/// What a rank policy would give, and what a server needs for it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Explored {
    /// Ranks, error and size.
    #[serde(flatten)]
    pub choice: Choice,
    /// The least `--max-lora-rank` that vLLM has for it; none if its highest is too low.
    pub max_lora_rank: Option<usize>,
}

/// What can be chosen between.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Exploration {
    /// The adapter.
    pub adapter: PathBuf,
    /// What each policy would give.
    pub choices: Vec<Explored>,
    /// Whether the adapter is of PEFT's files, which vLLM loads.
    #[serde(skip)]
    pub served: bool,
}

/// Says of powers of two, of shares of the energy and of `lossless` what error and size they would give.
///
/// # Errors
/// As [`plan`]; if factors cannot be read.
pub fn explore(options: &Options, progress: &dyn Progress) -> Result<Exploration> {
    // Nothing is written: the place only has to be one that the convention's outputs can have.
    let one_file = options.adapter.is_file();
    let name = if one_file { "lora-tool-explored.safetensors" } else { "lora-tool-explored" };
    let output = std::env::temp_dir().join(name);
    let shared = combine::Options { output, force: true, ..options.combine.clone() };
    let all = Options { rank: RankPolicy::Lossless, combine: shared, ..options.clone() };
    let choices = plan(&all)?.explore(progress)?;
    let explored = |choice: Choice| Explored { max_lora_rank: vllm_rank(choice.highest), choice };
    let choices = choices.into_iter().map(explored).collect();
    Ok(Exploration { adapter: options.adapter.clone(), choices, served: !one_file })
}
