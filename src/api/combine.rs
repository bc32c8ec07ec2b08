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

    setters! {
        /// How adapters are opened.
        open(options: OpenOptions) => open = options.inner;

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
        method(name: impl Into<String>) => method = Some(name.into());
    }

    /// A parameter of the method: `("density", 0.5)`, or `("density", "0.5,0.3")` for one number per adapter.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "numbers and texts as they are written")]
    pub fn parameter(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.inner.params.insert(name.into(), value.to_string());
        self
    }

    setters! {
        /// Where a method that looks at elements looks; at those of the deltas by default.
        space(space: Space) => space = Some(space);

        /// Reproduces another program's arithmetic.
        compat(compat: Compat) => compat = Some(compat);

        /// Rank of the result; `lossless` by default.
        rank(policy: RankPolicy) => rank = Some(policy);

        /// Rank of convolutions with kernels above 1 × 1; as [`Options::rank`] by default.
        conv_rank(policy: RankPolicy) => conv_rank = Some(policy);

        /// The highest rank of any module.
        max_rank(rank: usize) => max_rank = Some(rank);

        /// Pads every module with zeros to one rank.
        uniform(uniform: bool) => uniform = uniform;

        /// Dtype of the factors; the widest among the inputs by default.
        dtype(dtype: Dtype) => dtype = Some(dtype);

        /// The convention to write: `peft`, `kohya`, `diffusers`, `comfyui`, `mlx`, `gguf`; the inputs' by default.
        to(convention: impl Into<String>) => to = Some(convention.into());

        /// The base model, where the convention to write needs its names or its architecture.
        reference(base: impl Into<PathBuf>) => reference = Some(base.into());
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

    setters! {
        /// The title in the result's header; by default the output's name, where the adapters have titles.
        title(title: impl Into<String>) => title = Some(title.into());

        /// The trigger words in the result's header; by default those of all adapters.
        trigger(words: impl Into<String>) => trigger = Some(words.into());

        /// Writes a model card with the result: adapters, weights, figures, and the licences that inputs name.
        card(card: bool) => card = card;

        /// Combines adapters that share no module and name different base models, too.
        allow_disjoint(allow: bool) => allow_disjoint = allow;

        /// What to do where adapters replace one tensor with different values; an error by default.
        on_conflict(what: OnConflict) => on_conflict = Some(what);

        /// Replaces an existing output.
        force(force: bool) => force = force;

        /// Threads that compute; 0, the default, is one per core. The result does not depend on it.
        threads(threads: usize) => threads = threads;
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
