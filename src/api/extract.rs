//! Make an adapter of what fine-tuning changed: the low-rank part of TUNED − BASE.
//!
//! ```
//! use lora_tool::{extract, merge};
//!
//! let directory = tempfile::tempdir()?;
//! let [tuned, out] = ["tuned", "adapter"].map(|name| directory.path().join(name));
//! let base = "fixtures/llama/base";
//! merge::run(&merge::Options::new(base, &tuned).adapter("fixtures/llama/style", 1.0))?;
//!
//! let options = extract::Options::new(base, &tuned, &out, extract::RankChoice::Auto);
//! let report = extract::run(&options)?;
//! assert!(report.energy_kept > 0.9);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::PathBuf;

use super::Dtype;
use super::selection::pattern;
use crate::error::Result;
use crate::ops::extract as verb;

pub use crate::ops::extract::{Extract, LeftOut, ModuleReport, Plan, RankChoice, Report};

/// What to extract, and how.
#[derive(Debug, Clone)]
pub struct Options {
    inner: verb::Options,
}

impl Options {
    /// The difference of two checkpoints at this rank, written to `output`: a directory in PEFT's convention, or a
    /// `.safetensors` file in kohya's.
    pub fn new(
        base: impl Into<PathBuf>,
        tuned: impl Into<PathBuf>,
        output: impl Into<PathBuf>,
        rank: RankChoice,
    ) -> Self {
        let (base, tuned, output) = (base.into(), tuned.into(), output.into());
        Self { inner: verb::Options { base, tuned, output, rank, ..verb::Options::default() } }
    }

    /// Rank of convolutions with a kernel; that of the other modules by default.
    #[must_use]
    pub fn conv_rank(mut self, rank: RankChoice) -> Self {
        self.inner.conv_rank = Some(rank);
        self
    }

    /// The highest rank of any module.
    #[must_use]
    pub fn max_rank(mut self, rank: usize) -> Self {
        self.inner.max_rank = Some(rank);
        self
    }

    /// Makes modules of embeddings too.
    #[must_use]
    pub fn embeddings(mut self, embeddings: bool) -> Self {
        self.inner.embeddings = embeddings;
        self
    }

    /// Stores norms, biases and embeddings that changed as whole tensors, where the convention can.
    #[must_use]
    pub fn full_norms(mut self, full_norms: bool) -> Self {
        self.inner.full_norms = full_norms;
        self
    }

    /// Leaves out modules none of whose elements differs by more than this.
    #[must_use]
    pub fn min_diff(mut self, difference: f32) -> Self {
        self.inner.min_diff = difference;
        self
    }

    /// Decomposes whole differences in f64: slow, and needs room for one on each thread.
    #[must_use]
    pub fn exact(mut self, exact: bool) -> Self {
        self.inner.exact = exact;
        self
    }

    /// Dtype of the factors; f32 by default.
    #[must_use]
    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.inner.dtype = Some(dtype);
        self
    }

    /// The convention to write.
    #[must_use]
    pub fn to(mut self, convention: impl Into<String>) -> Self {
        self.inner.to = Some(convention.into());
        self
    }

    /// Looks only at tensors whose names match this regular expression.
    ///
    /// # Errors
    /// If it is no regular expression.
    pub fn include(mut self, regex: &str) -> Result<Self> {
        self.inner.include = Some(pattern(regex)?);
        Ok(self)
    }

    /// Leaves out tensors whose names match this regular expression.
    ///
    /// # Errors
    /// If it is no regular expression.
    pub fn exclude(mut self, regex: &str) -> Result<Self> {
        self.inner.exclude = Some(pattern(regex)?);
        Ok(self)
    }

    /// Seeds the random columns of the decomposition; the same seed gives the same bytes.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.inner.seed = seed;
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

/// Opens both checkpoints and decides which tensors are looked at; nothing is written until [`Extract::run`].
///
/// # Errors
/// Everything that can be wrong with the options and the headers.
pub fn plan(options: &Options) -> Result<Extract> {
    verb::plan(&options.inner)
}

/// Plans and extracts. For progress, call [`plan`] and [`Extract::run`].
///
/// # Errors
/// As [`plan`]; then reading and writing, and values that are not finite. No output is left then.
pub fn run(options: &Options) -> Result<Report> {
    plan(options)?.run(&())
}
