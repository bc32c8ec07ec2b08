//! What is asked of an extraction.

use std::path::PathBuf;
use std::str::FromStr;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::adapter::orientation::OrientationRule;
use crate::format::{Access, Dtype, pattern};
use crate::math::RankPolicy;

/// How ranks are chosen; written down as the command line has it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum RankChoice {
    /// What stands above the noise of rounding: the rank of a merged adapter.
    #[default]
    Auto,
    /// A rank policy.
    Policy(RankPolicy),
}

impl FromStr for RankChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Policy) }
    }
}

impl std::fmt::Display for RankChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Policy(policy) => policy.fmt(f),
        }
    }
}

impl From<RankChoice> for String {
    fn from(choice: RankChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for RankChoice {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

/// What to extract, and how.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Options {
    /// The base checkpoint.
    pub base: PathBuf,
    /// The fine-tuned one.
    pub tuned: PathBuf,
    /// Where the adapter goes.
    pub output: PathBuf,
    /// How ranks are chosen.
    pub rank: RankChoice,
    /// The same for convolutions with a kernel; as `rank` if `None`.
    pub conv_rank: Option<RankChoice>,
    /// The highest rank of any module.
    pub max_rank: Option<usize>,
    /// Make modules of embeddings.
    pub embeddings: bool,
    /// Store norms, biases and what else has no factors as they are, where the convention can.
    pub full_norms: bool,
    /// Leave out modules none of whose elements differs by more.
    pub min_diff: f32,
    /// Decompose whole differences, in f64.
    pub exact: bool,
    /// Choose modules as kohya's script does: kernels only with a rank of their own.
    pub kohya: bool,
    /// kohya's clamping of the factors.
    pub clamp_quantile: Option<f64>,
    /// Only tensors that match.
    #[serde(with = "pattern::optional")]
    pub include: Option<Regex>,
    /// No tensors that match.
    #[serde(with = "pattern::optional")]
    pub exclude: Option<Regex>,
    /// Dtype of the factors; f32 if `None`.
    pub dtype: Option<Dtype>,
    /// The convention to write; PEFT's for a directory, kohya's for a file, if `None`.
    pub to: Option<String>,
    /// What is said of weights whose sizes do not tell which way round they lie.
    pub orientation: Vec<OrientationRule>,
    /// How inputs are read.
    pub access: Access,
    /// Chooses the random columns.
    pub seed: u64,
    /// Replace an existing output.
    pub force: bool,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}
