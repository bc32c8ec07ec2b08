//! See what a program that loads adapters would refuse, ignore or scale wrongly.
//!
//! ```
//! use lora_tool::check::{self, Answer};
//!
//! let options = check::Options::new("fixtures/llama/style").program("peft");
//! assert_eq!(check::run(&options)?.answer, Answer::Yes);
//! # Ok::<(), lora_tool::Error>(())
//! ```

use std::path::PathBuf;

use super::OpenOptions;
use crate::error::Result;
use crate::ops::check as verb;

pub use crate::ops::check::{Answer, Effect, Finding, Place, Report, Severity, Verdict, programs};

/// What to check, and for which program.
#[derive(Debug, Clone)]
pub struct Options {
    inner: verb::Options,
}

impl Options {
    /// The adapter, for every program that is known.
    pub fn new(adapter: impl Into<PathBuf>) -> Self {
        let adapter = adapter.into();
        Self { inner: verb::Options { adapter, ..verb::Options::default() } }
    }

    /// One program, with a version after an @ if the newest is not meant: `vllm`, `peft@0.14`.
    #[must_use]
    pub fn program(mut self, name: impl Into<String>) -> Self {
        self.inner.program = Some(name.into());
        self
    }

    /// The base that its modules should fit.
    #[must_use]
    pub fn against(mut self, base: impl Into<PathBuf>) -> Self {
        self.inner.against = Some(base.into());
        self
    }

    /// The highest rank that the server is started for.
    #[must_use]
    pub fn max_rank(mut self, rank: usize) -> Self {
        self.inner.max_rank = Some(rank);
        self
    }

    /// How the adapter is opened.
    #[must_use]
    pub fn open(mut self, options: OpenOptions) -> Self {
        self.inner.open = options.inner;
        self
    }
}

/// Applies every rule of the program, or of all programs.
///
/// # Errors
/// If there is no such program or version, or a file cannot be opened or read.
pub fn run(options: &Options) -> Result<Report> {
    verb::run(&options.inner)
}
