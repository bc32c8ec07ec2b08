//! Lower an adapter's rank, or fit it to a share of energy, an error or a size.
//!
//! ```
//! use lora_tool::{RankPolicy, resize};
//!
//! let directory = tempfile::tempdir()?;
//! let out = directory.path().join("style-r4");
//! let report = resize::run(&resize::Options::new("fixtures/llama/style", out, RankPolicy::Fixed(4)))?;
//! assert!(report.modules.iter().all(|module| module.rank <= 4));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::PathBuf;

use super::selection::pattern;
use super::{Dtype, OpenOptions, RankPolicy};
use crate::error::Result;
use crate::ops::combine as shared;
use crate::ops::resize as verb;

pub use crate::ops::combine::{Combine as Resize, ModuleReport, Plan, PlannedModule, Report};

/// What to resize, and how.
#[derive(Debug, Clone)]
pub struct Options {
    inner: verb::Options,
}

impl Options {
    /// The adapter at this rank, written to `output` in its own convention.
    pub fn new(adapter: impl Into<PathBuf>, output: impl Into<PathBuf>, rank: RankPolicy) -> Self {
        let (adapter, output) = (adapter.into(), output.into());
        let combine = shared::Options { output, ..shared::Options::default() };
        Self { inner: verb::Options { adapter, rank, combine } }
    }

    /// How the adapter is opened.
    #[must_use]
    pub fn open(mut self, options: OpenOptions) -> Self {
        self.inner.combine.open = options.inner;
        self
    }

    /// Rank of convolutions, 1 × 1 too; that of the other modules by default.
    #[must_use]
    pub fn conv_rank(mut self, policy: RankPolicy) -> Self {
        self.inner.combine.conv_rank = Some(policy);
        self
    }

    /// The highest rank of any module.
    #[must_use]
    pub fn max_rank(mut self, rank: usize) -> Self {
        self.inner.combine.max_rank = Some(rank);
        self
    }

    /// Pads every module with zeros to one rank.
    #[must_use]
    pub fn uniform(mut self, uniform: bool) -> Self {
        self.inner.combine.uniform = uniform;
        self
    }

    /// Dtype of the factors; the adapter's own by default.
    #[must_use]
    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.inner.combine.dtype = Some(dtype);
        self
    }

    /// The convention to write; the adapter's own by default.
    #[must_use]
    pub fn to(mut self, convention: impl Into<String>) -> Self {
        self.inner.combine.to = Some(convention.into());
        self
    }

    /// Keeps only modules whose names match this regular expression.
    ///
    /// # Errors
    /// If it is no regular expression.
    pub fn include(mut self, regex: &str) -> Result<Self> {
        self.inner.combine.include = Some(pattern(regex)?);
        Ok(self)
    }

    /// Leaves out modules whose names match this regular expression.
    ///
    /// # Errors
    /// If it is no regular expression.
    pub fn exclude(mut self, regex: &str) -> Result<Self> {
        self.inner.combine.exclude = Some(pattern(regex)?);
        Ok(self)
    }

    /// Replaces an existing output.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.inner.combine.force = force;
        self
    }

    /// Threads that compute; 0, the default, is one per core. The result does not depend on it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.inner.combine.threads = threads;
        self
    }
}

/// Opens the adapter and decides the result's modules; nothing is written until [`Resize::run`].
///
/// # Errors
/// Everything that can be wrong with the options and the adapter.
pub fn plan(options: &Options) -> Result<Resize> {
    verb::plan(&options.inner)
}

/// Plans and resizes. For progress, call [`plan`] and [`Resize::run`].
///
/// # Errors
/// As [`plan`]; then reading and writing. No output is left then.
pub fn run(options: &Options) -> Result<Report> {
    plan(options)?.run(&())
}
