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

    setters! {
        /// Rank of convolutions with a kernel; that of the other modules by default.
        conv_rank(rank: RankChoice) => conv_rank = Some(rank);

        /// The highest rank of any module.
        max_rank(rank: usize) => max_rank = Some(rank);

        /// Makes modules of embeddings too.
        embeddings(embeddings: bool) => embeddings = embeddings;

        /// Stores norms, biases and embeddings that changed as whole tensors, where the convention can.
        full_norms(full_norms: bool) => full_norms = full_norms;

        /// Leaves out modules none of whose elements differs by more than this.
        min_diff(difference: f32) => min_diff = difference;

        /// Decomposes whole differences in f64: slow, and needs room for one on each thread.
        exact(exact: bool) => exact = exact;

        /// Dtype of the factors; f32 by default.
        dtype(dtype: Dtype) => dtype = Some(dtype);

        /// The convention to write.
        to(convention: impl Into<String>) => to = Some(convention.into());
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

    setters! {
        /// Seeds the random columns of the decomposition; the same seed gives the same bytes.
        seed(seed: u64) => seed = seed;

        /// Replaces an existing output.
        force(force: bool) => force = force;

        /// Threads that compute; 0, the default, is one per core. The result does not depend on it.
        threads(threads: usize) => threads = threads;
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
