//! resize: one adapter → lower or fitted rank. The mathematics is `combine` of one adapter; this file
//! only shapes its options.

use super::combine::{self, Combine, ConvScope};
use crate::error::Result;
use crate::math::RankPolicy;
use crate::ops::shared::inputs::AdapterInput;

/// What to resize, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The adapter.
    pub adapter: std::path::PathBuf,
    /// Rank policy.
    pub rank: RankPolicy,
    /// Everything that `combine` takes too; its adapters, method and rank are set here.
    pub combine: combine::Options,
}

/// Opens the adapter and decides the result's modules.
///
/// # Errors
/// As [`combine::plan`].
pub fn plan(options: &Options) -> Result<Combine> {
    combine::plan(&combine::Options {
        adapters: vec![AdapterInput::new(&options.adapter, 1.0)],
        method: None,
        compat: None,
        rank: Some(options.rank),
        conv_scope: ConvScope::All,
        keep_scale: true,
        ..options.combine.clone()
    })
}
