//! See what is in adapters and checkpoints, from their headers alone unless spectra are asked for.
//!
//! ```
//! use lora_tool::inspect;
//!
//! let options = inspect::Options::new(["fixtures/llama/style", "fixtures/llama/base"]).spectrum(true);
//! let report = inspect::run(&options)?;
//! let kinds: Vec<_> = report.items.iter().map(|item| item.kind).collect();
//! assert_eq!(kinds, ["adapter", "checkpoint"]);
//! # Ok::<(), lora_tool::Error>(())
//! ```

use std::path::PathBuf;

use super::OpenOptions;
use crate::error::Result;
use crate::ops::inspect as verb;

pub use crate::ops::inspect::{Item, ModuleItem, ReplacementItem, Report, ShardItem, SpectrumItem};

/// What to look at.
#[derive(Debug, Clone)]
pub struct Options {
    inner: verb::Options,
}

impl Options {
    /// Adapters or checkpoints, in the order in which the report has them.
    pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        let paths = paths.into_iter().map(Into::into).collect();
        Self { inner: verb::Options { paths, ..verb::Options::default() } }
    }

    setters! {
        /// How adapters are opened.
        open(options: OpenOptions) => open = options.inner;

        /// Shows where each module lands in this base.
        against(base: impl Into<PathBuf>) => against = Some(base.into());

        /// Reads the factors: norm, singular values and effective rank of every module's update.
        spectrum(spectrum: bool) => spectrum = spectrum;
    }
}

/// Looks at every path.
///
/// # Errors
/// If a path is neither a readable adapter nor a readable checkpoint. Faults of single modules are warnings of the
/// report.
pub fn run(options: &Options) -> Result<Report> {
    verb::run(&options.inner)
}
