//! Manage and merge LoRA adapters: exact, streaming, without Python.
//!
//! An update is Δ = s · B · A: two factors and a scale. This crate reads it from PEFT directories and from files of
//! kohya's scripts, diffusers, ComfyUI, MLX and llama.cpp, adds it to base weights of any size with one rounding,
//! makes one adapter of several, and writes it in any of these conventions. All of it runs on the CPU.
//!
//! # A walk through
//!
//! Open an adapter and look at it: its modules, their scales, their factors.
//!
//! ```
//! use lora_tool::Adapter;
//!
//! let style = Adapter::open("fixtures/llama/style")?;
//! for module in style.modules() {
//!     let factors = module.factors()?;
//!     assert_eq!(factors.b.len(), module.out_features() * factors.rank);
//!     // A row of scale · B · A.
//!     assert_eq!(module.delta_rows(0..1)?.len(), module.in_features());
//! }
//! # Ok::<(), lora_tool::Error>(())
//! ```
//!
//! Make one adapter of two. The sum is exact; the rank policy says how much of it is kept.
//!
//! ```
//! use lora_tool::{RankPolicy, combine};
//!
//! # let directory = tempfile::tempdir()?;
//! # let out = directory.path().join("both");
//! let options = combine::Options::new(&out)
//!     .adapter("fixtures/llama/style", 0.7)
//!     .adapter("fixtures/llama/task", 0.3)
//!     .rank(RankPolicy::Fixed(12));
//! let report = combine::run(&options)?;
//! println!("{:.1} % of the energy kept", 100.0 * report.energy_kept);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Merge it into the base, and check the result against a recomputation in f64.
//!
//! ```
//! use lora_tool::merge;
//!
//! # let directory = tempfile::tempdir()?;
//! # let out = directory.path().join("merged");
//! let options = merge::Options::new("fixtures/llama/base", &out)
//!     .adapter("fixtures/llama/style", 1.0)
//!     .verify(true);
//! let report = merge::run(&options)?;
//! assert!(report.verification.is_some_and(|verification| verification.ok));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Or serve the adapter as it is, and ask beforehand what the server would make of it.
//!
//! ```
//! use lora_tool::check;
//!
//! let report = check::run(&check::Options::new("fixtures/llama/style").program("vllm"))?;
//! for finding in &report.findings {
//!     println!("{}: {}", finding.rule, finding.says);
//! }
//! # Ok::<(), lora_tool::Error>(())
//! ```
//!
//! # What holds everywhere
//!
//! - A verb is a module with `Options`, `plan` (where it writes) and `run`. `plan` raises every error that the
//!   inputs can cause before a byte is written.
//! - Outputs are complete or absent; an existing one is an error without `force`. Inputs are never written.
//! - Nothing is guessed: what matches nothing, disagrees or is not finite is an [`Error`], which names the file and the
//!   tensor, and says in [`Error::hint`] what to do.
//! - The same inputs and options give the same bytes, whatever the number of threads.
//! - Nothing is printed. Warnings are values of the report, and reports serialise as the command prints them with
//!   `--json`.
//!
//! The command line and its JSON are the stable surface; this library is 0.x. What is not on this page is not part of
//! it.

// The layers, from bytes to verbs, as `ARCHITECTURE.md` draws them. They are public for the command and the tests.
#[doc(hidden)]
pub mod adapter;
mod api;
pub mod error;
#[doc(hidden)]
pub mod format;
#[doc(hidden)]
pub mod math;
#[doc(hidden)]
pub mod method;
#[doc(hidden)]
pub mod ops;
#[doc(hidden)]
pub mod weight;

pub use api::{
    Adapter, Checkpoint, Compat, Dtype, Factors, Method, Module, OpenOptions, Parameter, Progress,
    RankPolicy, Space, Tensor, as_lora, check, combine, convert, extract, inspect, merge, resize,
};
pub use error::{Error, ErrorKind, Result};
