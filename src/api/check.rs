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

    setters! {
        /// One program, with a version after an @ if the newest is not meant: `vllm`, `peft@0.14`.
        program(name: impl Into<String>) => program = Some(name.into());

        /// The base that its modules should fit.
        against(base: impl Into<PathBuf>) => against = Some(base.into());

        /// The highest rank that the server is started for.
        max_rank(rank: usize) => max_rank = Some(rank);

        /// How the adapter is opened.
        open(options: OpenOptions) => open = options.inner;
    }
}

/// Applies every rule of the program, or of all programs.
///
/// # Errors
/// If there is no such program or version, or a file cannot be opened or read.
pub fn run(options: &Options) -> Result<Report> {
    verb::run(&options.inner)
}
