//! Which adapter becomes a LoRA, and how.

use std::path::PathBuf;

use crate::adapter::OpenOptions;
use crate::format::Dtype;
use crate::math::RankPolicy;

/// The dtype of the factors that are written.
pub(super) const DTYPE: Dtype = Dtype::F32;

/// Which adapter to write as a LoRA, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The adapter.
    pub adapter: PathBuf,
    /// How ranks are chosen.
    pub rank: RankPolicy,
    /// The convention's name; if empty the program's, else the adapter's.
    pub to: String,
    /// The program that shall load the result, by name.
    pub program: Option<String>,
    /// The base model, which updates depend on that are no sums (DoRA, OFT, IA3, …).
    pub reference: Option<PathBuf>,
    /// Where the result goes.
    pub output: PathBuf,
    /// Leave out what has no factors.
    pub allow_loss: bool,
    /// How the adapter is opened.
    pub open: OpenOptions,
    /// Replace an existing output.
    pub force: bool,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}
