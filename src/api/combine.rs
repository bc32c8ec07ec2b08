//! Make one adapter of several: by default the exact weighted sum of their updates, at a rank of your choice.
//!
//! ```
//! use lora_tool::{RankPolicy, combine};
//!
//! let directory = tempfile::tempdir()?;
//! let options = combine::Options::new(directory.path().join("both"))
//!     .adapter("fixtures/llama/style", 0.7)
//!     .adapter("fixtures/llama/task", 0.3)
//!     .rank(RankPolicy::Energy(0.99));
//! let report = combine::run(&options)?;
//! assert!(report.energy_kept >= 0.99);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::PathBuf;

use super::selection::pattern;
use super::{Compat, Dtype, OpenOptions, RankPolicy, Space};
use crate::error::Result;
use crate::ops::combine as verb;
use crate::ops::merge::AdapterInput;

pub use crate::ops::combine::{
    Combine, InputReport, ModuleReport, OnConflict, Plan, PlannedModule, Report,
};

/// What to combine, and how.
#[derive(Debug, Clone)]
pub struct Options {
    inner: verb::Options,
}

impl Options {
    /// A combination written to `output`: a directory for PEFT and MLX, a `.safetensors` or `.gguf` file for other
    /// conventions.
    pub fn new(output: impl Into<PathBuf>) -> Self {
        Self { inner: verb::Options { output: output.into(), ..verb::Options::default() } }
    }

    /// Adds an adapter with what its update is multiplied by.
    #[must_use]
    pub fn adapter(mut self, path: impl Into<PathBuf>, weight: f64) -> Self {
        self.inner.adapters.push(AdapterInput::new(path, weight));
        self
    }

    /// How adapters are opened.
    #[must_use]
    pub fn open(mut self, options: OpenOptions) -> Self {
        self.inner.open = options.inner;
        self
    }

    /// The [`Method`](crate::Method) by name; `linear`, the weighted sum, by default.
    ///
    /// ```
    /// use lora_tool::{RankPolicy, combine};
    ///
    /// let directory = tempfile::tempdir()?;
    /// let options = combine::Options::new(directory.path().join("ties"))
    ///     .adapter("fixtures/llama/style", 1.0)
    ///     .adapter("fixtures/llama/task", 1.0)
    ///     .method("ties")
    ///     .parameter("density", 0.5)
    ///     .rank(RankPolicy::Fixed(8));
    /// assert_eq!(combine::run(&options)?.method, "ties");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn method(mut self, name: impl Into<String>) -> Self {
        self.inner.method = Some(name.into());
        self
    }

    /// A parameter of the method: `("density", 0.5)`, or `("density", "0.5,0.3")` for one number per adapter.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "numbers and texts as they are written")]
    pub fn parameter(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.inner.params.insert(name.into(), value.to_string());
        self
    }

    /// Where a method that looks at elements looks; at those of the deltas by default.
    #[must_use]
    pub fn space(mut self, space: Space) -> Self {
        self.inner.space = Some(space);
        self
    }

    /// Reproduces another program's arithmetic.
    #[must_use]
    pub fn compat(mut self, compat: Compat) -> Self {
        self.inner.compat = Some(compat);
        self
    }

    /// Rank of the result; `lossless` by default.
    #[must_use]
    pub fn rank(mut self, policy: RankPolicy) -> Self {
        self.inner.rank = Some(policy);
        self
    }

    /// Rank of convolutions with kernels above 1 × 1; as [`Options::rank`] by default.
    #[must_use]
    pub fn conv_rank(mut self, policy: RankPolicy) -> Self {
        self.inner.conv_rank = Some(policy);
        self
    }

    /// The highest rank of any module.
    #[must_use]
    pub fn max_rank(mut self, rank: usize) -> Self {
        self.inner.max_rank = Some(rank);
        self
    }

    /// Pads every module with zeros to one rank.
    #[must_use]
    pub fn uniform(mut self, uniform: bool) -> Self {
        self.inner.uniform = uniform;
        self
    }

    /// Dtype of the factors; the widest among the inputs by default.
    #[must_use]
    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.inner.dtype = Some(dtype);
        self
    }

    /// The convention to write: `peft`, `kohya`, `diffusers`, `comfyui`, `mlx`, `gguf`; the inputs' by default.
    #[must_use]
    pub fn to(mut self, convention: impl Into<String>) -> Self {
        self.inner.to = Some(convention.into());
        self
    }

    /// The base model, where the convention to write needs its names or its architecture.
    #[must_use]
    pub fn reference(mut self, base: impl Into<PathBuf>) -> Self {
        self.inner.reference = Some(base.into());
        self
    }

    /// Combines only modules whose names match this regular expression.
    ///
    /// # Errors
    /// If it is no regular expression.
    pub fn include(mut self, regex: &str) -> Result<Self> {
        self.inner.include = Some(pattern(regex)?);
        Ok(self)
    }

    /// Leaves out modules whose names match this regular expression.
    ///
    /// # Errors
    /// If it is no regular expression.
    pub fn exclude(mut self, regex: &str) -> Result<Self> {
        self.inner.exclude = Some(pattern(regex)?);
        Ok(self)
    }

    /// Multiplies the weight of modules whose names match; of several that match, the last one wins.
    ///
    /// # Errors
    /// If it is no regular expression.
    pub fn module_weight(mut self, regex: &str, weight: f64) -> Result<Self> {
        self.inner.module_weights.push((pattern(regex)?, weight));
        Ok(self)
    }

    /// The title in the result's header; by default the output's name, where the adapters have titles.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.inner.title = Some(title.into());
        self
    }

    /// The trigger words in the result's header; by default those of all adapters.
    #[must_use]
    pub fn trigger(mut self, words: impl Into<String>) -> Self {
        self.inner.trigger = Some(words.into());
        self
    }

    /// Combines adapters that share no module and name different base models, too.
    #[must_use]
    pub fn allow_disjoint(mut self, allow: bool) -> Self {
        self.inner.allow_disjoint = allow;
        self
    }

    /// What to do where adapters replace one tensor with different values; an error by default.
    #[must_use]
    pub fn on_conflict(mut self, what: OnConflict) -> Self {
        self.inner.on_conflict = Some(what);
        self
    }

    /// Replaces an existing output.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.inner.force = force;
        self
    }

    /// Threads that compute; 0, the default, is one per core. The result does not depend on it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.inner.threads = threads;
        self
    }
}

/// Opens all adapters and decides the result's modules; nothing is written until [`Combine::run`].
///
/// # Errors
/// Everything that can be wrong with the options and the inputs.
pub fn plan(options: &Options) -> Result<Combine> {
    verb::plan(&options.inner)
}

/// Plans and combines. For progress, call [`plan`] and [`Combine::run`].
///
/// # Errors
/// As [`plan`]; then reading and writing. No output is left then.
pub fn run(options: &Options) -> Result<Report> {
    plan(options)?.run(&())
}
