//! What an extraction found, kept and left out.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One extracted module.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModuleReport {
    /// Its name in the output.
    pub name: String,
    /// The base's tensor.
    pub base_tensor: String,
    /// Its rank.
    pub rank: usize,
    /// ‖TUNED − BASE‖.
    pub norm: f64,
    /// ‖written‖² / ‖TUNED − BASE‖².
    pub energy_kept: f64,
    /// ‖TUNED − BASE − written‖ / ‖TUNED − BASE‖, from the exact norm of the difference.
    pub relative_error: f64,
    /// σ of the last kept value over that of the first dropped one, where that one is known.
    pub gap: Option<f64>,
    /// Times that the two tensors were read.
    pub passes: usize,
}

/// A tensor that differs and is not in the adapter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeftOut {
    /// The base's name.
    pub tensor: String,
    /// Why.
    pub reason: Cow<'static, str>,
    /// ‖TUNED − BASE‖.
    pub norm: f64,
}

/// What an extraction did.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Whether nothing was written: the rest is what would be.
    pub dry_run: bool,
    /// Where the result is.
    pub output: PathBuf,
    /// The rank policy.
    pub rank: String,
    /// The convention written.
    pub convention: &'static str,
    /// Tensors of both checkpoints.
    pub tensors: usize,
    /// Of those, with the same bytes.
    pub equal: usize,
    /// ‖written‖² / ‖differences‖², over the extracted modules.
    pub energy_kept: f64,
    /// ‖differences − written‖ / ‖differences‖, over the extracted modules.
    pub relative_error: f64,
    /// The extracted modules.
    pub modules: Vec<ModuleReport>,
    /// Tensors stored whole.
    pub whole: Vec<String>,
    /// What differs and is not in the adapter.
    pub left_out: Vec<LeftOut>,
    /// Parameters of the modules.
    pub parameters: u64,
    /// Bytes of the tensor file.
    pub bytes: u64,
    /// What a user should know.
    pub warnings: Vec<String>,
}
