//! Write an adapter of any family as a plain LoRA.
//!
//! ```
//! use lora_tool::{Adapter, RankPolicy, as_lora};
//!
//! let directory = tempfile::tempdir()?;
//! let out = directory.path().join("lora");
//! let adapter = "fixtures/golden/merge_road_1/input/adapter";
//! let options = as_lora::Options::new(adapter, &out, RankPolicy::Fixed(16))
//!     .reference("fixtures/golden/merge_road_1/input/base");
//! let report = as_lora::run(&options)?;
//! assert!(report.relative_error < 1e-6);
//! assert!(Adapter::open(&out)?.modules().all(|module| module.family() == "lora"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::PathBuf;

use super::{OpenOptions, RankPolicy};
use crate::error::Result;
use crate::ops::{as_lora as verb, convert};

pub use crate::ops::as_lora::{AsLora, ModuleReport, Report};

/// What to write as a LoRA, and how.
#[derive(Debug, Clone)]
pub struct Options {
    inner: verb::Options,
}

impl Options {
    /// Every module of the adapter as factors of this rank, in the adapter's own convention.
    pub fn new(adapter: impl Into<PathBuf>, output: impl Into<PathBuf>, rank: RankPolicy) -> Self {
        let (adapter, output) = (adapter.into(), output.into());
        let convert = convert::Options { adapter, output, ..convert::Options::default() };
        let inner = verb::Options { convert, rank, threads: 0 };
        Self { inner }
    }

    /// How the adapter is opened.
    #[must_use]
    pub fn open(mut self, options: OpenOptions) -> Self {
        self.inner.convert.open = options.inner;
        self
    }

    /// Another convention, by name: `peft`, `kohya`, `diffusers`, `comfyui`, `mlx`, `gguf`.
    #[must_use]
    pub fn to(mut self, convention: impl Into<String>) -> Self {
        self.inner.convert.to = convention.into();
        self
    }

    /// As a program loads it: `vllm`, `ollama`, `comfyui`, …
    #[must_use]
    pub fn for_program(mut self, program: impl Into<String>) -> Self {
        self.inner.convert.program = Some(program.into());
        self
    }

    /// The base model, which the updates of some families depend on (DoRA, OFT, IA³, …), and whose shapes others are
    /// made for (FourierFT, SHiRA, …).
    #[must_use]
    pub fn reference(mut self, base: impl Into<PathBuf>) -> Self {
        self.inner.convert.reference = Some(base.into());
        self
    }

    /// Leaves out what has no factors, which is an error by default.
    #[must_use]
    pub fn allow_loss(mut self, allow: bool) -> Self {
        self.inner.convert.allow_loss = allow;
        self
    }

    /// Replaces an existing output.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.inner.convert.force = force;
        self
    }

    /// Threads that compute; 0 for one a core.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.inner.threads = threads;
        self
    }
}

/// Opens the adapter and decides where every update comes from; nothing is written until [`AsLora::run`].
///
/// # Errors
/// Everything that can be wrong with the options and the adapter, and what would be lost.
pub fn plan(options: &Options) -> Result<AsLora> {
    verb::plan(&options.inner)
}

/// Plans, computes the factors and writes them.
///
/// # Errors
/// As [`plan`]; then reading and writing, and values that are not finite. No output is left then.
pub fn run(options: &Options) -> Result<Report> {
    plan(options)?.run(&())
}
