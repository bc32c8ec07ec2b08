//! verify: is this checkpoint what the merge should have written?
//!
//! The merge is made a second time, into a comparison with every byte of the tensors; headers, index,
//! configs and all other files are compared too. Since the same code made both, some rows of every changed
//! tensor are computed once more in f64, by plain loops that share nothing with the kernels, and held to
//! what one rounding (and f32 accumulation) can explain.

mod recorded;

use std::path::PathBuf;

use super::Progress;
use super::merge;
use super::merge::check::comparison::check;
use crate::error::{ErrorKind, Result};
use crate::ops::shared::base::open_merged;
use crate::ops::shared::provenance::RECIPE;

pub use super::merge::check::verdict::{Fault, Report};
pub use recorded::recorded;

/// What to verify: the merged checkpoint, and the options of the merge that should have made it
/// (whose `output` is not looked at).
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The checkpoint to judge.
    pub merged: PathBuf,
    /// How it should have been made.
    pub merge: merge::Options,
    /// Look at so many rows of each tensor only, without a second run of the merge.
    pub sample: Option<usize>,
}

/// Compares `options.merged` with what `options.merge` would write.
///
/// # Errors
/// If either cannot be read or planned; differences are no error but faults of the report.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Report> {
    if options.sample == Some(0) {
        return Err(ErrorKind::BadOption("no rows are a sample of nothing".to_owned()).into());
    }
    let merged = open_merged(&options.merged, options.merge.open.access)?;
    // Whether the result is one file is told by its name, as merge does; of a directory it shows whether it is GGUF.
    let types = options.merge.types.or_else(|| merged.is_gguf().then(merge::Types::default));
    let output = options.merged.clone();
    let mut merge = merge::prepare(&merge::Options { output, types, ..options.merge.clone() })?;
    let header = merged.shards.first().and_then(|shard| shard.header.metadata.as_ref());
    merge.expect_origin(header)?;
    let recipe = header.and_then(|header| header.get(RECIPE)).cloned();
    let taken = recipe.is_some_and(|text| merge.take_recipe(text));
    let mut report = check(&merge, &merged, options.sample, progress)?;
    if taken {
        let reason = "the recipe in the header is not compared: only `run` knows it".to_owned();
        report.warnings.push(reason);
    }
    Ok(report)
}
