//! What an adapter became as a LoRA, and how far that is from what it was.

use std::path::PathBuf;

use serde::Serialize;

use super::options::Options;
use crate::adapter::Adapter;
use crate::adapter::convention::Convention;

/// One module as plain factors.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ModuleReport {
    /// Its name in the adapter.
    pub name: String,
    /// What it was.
    pub family: &'static str,
    /// Whether its update had factors, so that nothing was decomposed but these.
    pub exact_factors: bool,
    /// Its rank now.
    pub rank: usize,
    /// ‖update‖.
    pub norm: f64,
    /// ‖update − written‖ / ‖update‖, rounding to f32 included.
    pub relative_error: f64,
    /// Times that the update was read by rows.
    pub passes: usize,
}

/// What will be made of an adapter, or was.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Whether nothing was written: the rest is what would be.
    pub dry_run: bool,
    /// Where the result is.
    pub output: PathBuf,
    /// The adapter's convention.
    pub from: &'static str,
    /// The result's.
    pub to: &'static str,
    /// The rank policy.
    pub rank: String,
    /// ‖updates − written‖ / ‖updates‖, over all modules.
    pub relative_error: f64,
    /// The modules that have factors now.
    pub modules: Vec<ModuleReport>,
    /// What has no factors and was left out.
    pub lost: Vec<String>,
    /// Bytes of the result's tensor file.
    pub bytes: u64,
}

impl Report {
    /// What is known before anything is computed.
    pub(super) fn planned(
        options: &Options,
        adapter: &Adapter,
        target: &Convention,
        lost: Vec<String>,
    ) -> Self {
        Self {
            dry_run: false,
            output: options.convert.output.clone(),
            from: adapter.convention.name,
            to: target.name,
            rank: options.rank.to_string(),
            relative_error: 0.0,
            modules: Vec::new(),
            lost,
            bytes: 0,
        }
    }

    /// Adds what was computed.
    pub(super) fn fill(&mut self, modules: Vec<ModuleReport>, bytes: u64) {
        let square = |value: f64| value * value;
        let total: f64 = modules.iter().map(|module| square(module.norm)).sum();
        let off: f64 =
            modules.iter().map(|module| square(module.norm * module.relative_error)).sum();
        self.relative_error = if total > 0.0 { (off / total).sqrt() } else { 0.0 };
        (self.modules, self.bytes) = (modules, bytes);
    }
}
