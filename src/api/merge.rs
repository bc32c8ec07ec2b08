//! Bake adapters into base weights: W' = round(W + Σ wᵢ · sᵢ · Bᵢ · Aᵢ), streamed and rounded once.
//!
//! ```
//! use lora_tool::{Dtype, merge};
//!
//! let directory = tempfile::tempdir()?;
//! let out = directory.path().join("merged");
//! let options = merge::Options::new("fixtures/llama/base", &out)
//!     .adapter("fixtures/llama/style", 0.7)
//!     .adapter("fixtures/llama/task", -0.2)
//!     .dtype(Dtype::BF16)
//!     .verify(true);
//! let report = merge::run(&options)?;
//! assert_eq!(report.modules_applied, report.modules);
//! assert!(report.verification.is_some_and(|verification| verification.ok));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::PathBuf;

use super::selection::pattern;
use super::{Compat, Dtype, OpenOptions};
use crate::error::Result;
use crate::ops::merge::{self as verb, AdapterInput};

pub use crate::error::UnmatchedName;
pub use crate::ops::merge::{
    Effective, Merge, NotCarried, OutputShard, OutputTensor, Plan, PlannedAdapter, Report,
    SideFile, TensorPlan, TensorReport,
};
pub use crate::ops::verify::{Fault, Report as Verification};

/// What to merge, and how.
#[derive(Debug, Clone)]
pub struct Options {
    inner: verb::Options,
}

impl Options {
    /// A merge into the checkpoint at `base`, written to `output`: one file if that ends in `.safetensors`, else a
    /// directory.
    pub fn new(base: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        let (base, output) = (base.into(), output.into());
        Self { inner: verb::Options { base, output, ..verb::Options::default() } }
    }

    /// Adds an adapter, or a fine-tuned checkpoint of the same base, with what its update is multiplied by.
    #[must_use]
    pub fn adapter(mut self, path: impl Into<PathBuf>, weight: f64) -> Self {
        self.inner.adapters.push(AdapterInput::new(path, weight));
        self
    }

    setters! {
        /// How adapters are opened.
        open(options: OpenOptions) => open = options.inner;

        /// The [`Method`](crate::Method) by name; `linear`, the weighted sum, by default.
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
        /// Reproduces another program's arithmetic.
        compat(compat: Compat) => compat = Some(compat);

        /// Dtype of the result's floating-point tensors; the base's own by default.
        dtype(dtype: Dtype) => dtype = Some(dtype);

        /// Bytes that a shard may have; the base's own shards by default.
        max_shard_size(bytes: u64) => max_shard_size = Some(bytes);
    }

    /// Merges only modules whose names match this regular expression.
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
        /// Merges the rest if some adapter tensors fit nothing in the base.
        allow_unmatched(allow: bool) => allow_unmatched = allow;

        /// Adds tensors that the base does not have, also those that no config declares.
        add_new(add: bool) => add_new = add;

        /// Keeps tied embeddings tied though an adapter changes only one side.
        keep_tied(keep: bool) => keep_tied = keep;

        /// Opens the result again and compares it with a recomputation in f64.
        verify(verify: bool) => verify = verify;

        /// Keeps in this file what is needed to restore the base from the result, bit for bit.
        receipt(file: impl Into<PathBuf>) => receipt = Some(file.into());

        /// Writes a model card with the result: base, adapters, weights, figures, and the licences that inputs name.
        card(card: bool) => card = card;

        /// Keeps finished shards of an interrupted run, and reuses those of an earlier one.
        resume(resume: bool) => resume = resume;

        /// Replaces an existing output.
        force(force: bool) => force = force;

        /// Threads that compute; 0, the default, is one per core. The result does not depend on it.
        threads(threads: usize) => threads = threads;
    }
}

/// Opens all inputs and decides every tensor of the output; nothing is written until [`Merge::run`].
///
/// ```
/// use lora_tool::merge;
///
/// let options =
///     merge::Options::new("fixtures/llama/base", "merged").adapter("fixtures/llama/style", 1.0);
/// let merge = merge::plan(&options)?;
/// assert!(merge.plan.tensors().count() > 0);
/// # Ok::<(), lora_tool::Error>(())
/// ```
///
/// # Errors
/// Everything that can be wrong with the options and the inputs.
pub fn plan(options: &Options) -> Result<Merge> {
    verb::plan(&options.inner)
}

/// Plans and merges. For progress, call [`plan`] and [`Merge::run`].
///
/// # Errors
/// As [`plan`]; then reading and writing, and a base value that is not finite. No output is left then.
pub fn run(options: &Options) -> Result<Report> {
    plan(options)?.run(&())
}
