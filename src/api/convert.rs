//! Write the same update in another convention, or as a program needs it.
//!
//! ```
//! use lora_tool::{Adapter, convert};
//!
//! let directory = tempfile::tempdir()?;
//! let out = directory.path().join("style.safetensors");
//! let report = convert::run(&convert::Options::to("kohya", "fixtures/llama/style", &out))?;
//! assert_eq!(report.max_relative_error, Some(0.0));
//! assert_eq!(Adapter::open(&out)?.convention(), "kohya");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::PathBuf;

use super::OpenOptions;
use crate::error::Result;
use crate::ops::convert as verb;

pub use crate::ops::convert::{Convert, ModuleReport, Report};

/// What to convert, and to what.
#[derive(Debug, Clone)]
pub struct Options {
    inner: verb::Options,
}

impl Options {
    /// To a convention by name: `peft`, `kohya`, `diffusers`, `comfyui`, `mlx`, `gguf`.
    pub fn to(
        convention: impl Into<String>,
        adapter: impl Into<PathBuf>,
        output: impl Into<PathBuf>,
    ) -> Self {
        let (adapter, output, to) = (adapter.into(), output.into(), convention.into());
        Self { inner: verb::Options { adapter, to, output, ..verb::Options::default() } }
    }

    /// For a program that shall load the result: `vllm`, `ollama`, `comfyui`, …
    pub fn for_program(
        program: impl Into<String>,
        adapter: impl Into<PathBuf>,
        output: impl Into<PathBuf>,
    ) -> Self {
        let (adapter, output, program) = (adapter.into(), output.into(), Some(program.into()));
        Self { inner: verb::Options { adapter, program, output, ..verb::Options::default() } }
    }

    setters! {
        /// How the adapter is opened.
        open(options: OpenOptions) => open = options.inner;

        /// The base model, where the target needs its names, its shapes or its architecture.
        reference(base: impl Into<PathBuf>) => reference = Some(base.into());

        /// Leaves out what the target cannot hold, which is an error by default.
        allow_loss(allow: bool) => allow_loss = allow;

        /// Replaces an existing output.
        force(force: bool) => force = force;
    }
}

/// Opens the adapter and decides every module's name, tensors and scale; nothing is written until [`Convert::run`].
///
/// # Errors
/// Everything that can be wrong with the options and the adapter, and what would be lost.
pub fn plan(options: &Options) -> Result<Convert> {
    verb::plan(&options.inner)
}

/// Plans and converts; the result is opened again and every module compared.
///
/// # Errors
/// As [`plan`]; then reading and writing. No output is left then.
pub fn run(options: &Options) -> Result<Report> {
    plan(options)?.run(&())
}
