//! What a merge leaves beside its output: the receipt that undoes it, and the adapter that gives back what quantising
//! took. Both are in place before the output is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rayon::ThreadPool;

use super::jobs::Stats;
use crate::error::Result;
use crate::format::staging::remove_any;
use crate::format::{Checkpoint, Staging};
use crate::ops::merge::card::card as merge_card;
use crate::ops::merge::plan::side;
use crate::ops::merge::{Merge, Residual};
use crate::ops::receipt;
use crate::ops::shared::card;
use crate::ops::shared::side_file::SideFile;
use crate::weight::SIDE_FILES;

/// What was written beside the output.
#[derive(Debug, Default)]
pub(in crate::ops::merge) struct Beside {
    /// Bytes of the receipt.
    pub(in crate::ops::merge) receipt: Option<u64>,
    /// The adapter that gives back what quantising took.
    pub(in crate::ops::merge) residual: Option<Residual>,
    /// The model card, where it is a file of its own.
    card: Option<PathBuf>,
}

impl Beside {
    /// Writes all that is asked for, of an output that is whole and not yet in place.
    ///
    /// # Errors
    /// If less of an update survives, with what is given back beside it, than shall; I/O. Nothing is left then.
    pub(in crate::ops::merge) fn write(
        merge: &Merge,
        staging: &Staging,
        stats: &Stats,
        pool: &ThreadPool,
    ) -> Result<Self> {
        let made = pool.install(|| merge.residual())?;
        let mut survival = merge.plan.survival(stats);
        if let Some(made) = &made {
            let gains: BTreeMap<&str, f64> = made.gains().into_iter().collect();
            for (name, gain) in &mut survival {
                *gain = gains.get(name).copied().unwrap_or(*gain);
            }
        }
        merge.plan.check_gains(survival)?;
        let residual = made.map(|made| made.write(merge)).transpose()?;
        let mut beside = Self { receipt: None, residual, card: None };
        let receipt = pool.install(|| keep_receipt(merge, staging));
        beside.receipt = receipt.inspect_err(|_| beside.remove(merge))?;
        if merge.options.card {
            let (output, one_file) = (&merge.plan.output, merge.plan.one_file);
            let card = merge_card(merge, &merge.report(stats));
            card::write(&card, staging, (output, one_file), merge.options.force)
                .inspect_err(|_| beside.remove(merge))?;
            beside.card = one_file.then(|| card::place(output, true));
        }
        Ok(beside)
    }

    /// Removes it: beside a merge that is not there it would only mislead.
    pub(in crate::ops::merge) fn remove(&self, merge: &Merge) {
        let receipt = merge.options.receipt.as_ref().filter(|_| self.receipt.is_some());
        let residual = self.residual.as_ref().map(|residual| &residual.output);
        for path in receipt.into_iter().chain(residual).chain(&self.card) {
            let _ = remove_any(path);
        }
    }
}

/// Writes what undoes the merge, if that was asked for, before the merge is in place; its length.
fn keep_receipt(merge: &Merge, staging: &Staging) -> Result<Option<u64>> {
    let Some(path) = &merge.options.receipt else { return Ok(None) };
    let merged = Checkpoint::open(&staging.content(), merge.options.open.access)?;
    let target = Staging::file(path, merge.options.force)?;
    let (plan, output) = (&merge.plan, target.create("")?);
    output.no_wider_than(merge.inputs.sources())?;
    let beside = if plan.one_file { side::beside(&merge.inputs.base)? } else { Vec::new() };
    let mut sides = if plan.one_file { beside } else { plan.side_files.clone() };
    sides.extend(if plan.one_file { Vec::new() } else { descriptions(merge) });
    // What is had back is the base as it is stored.
    let stored = merge.inputs.base.is_computed();
    let stored =
        stored.then(|| Checkpoint::open(&plan.base, merge.options.open.access)).transpose()?;
    let base = stored.as_ref().unwrap_or(&merge.inputs.base);
    let bytes = receipt::make(base, &merged, &sides, plan.one_file, output)?;
    target.commit()?;
    Ok(Some(bytes))
}

/// Files beside the base that describe quantised weights, where the result has none: they come back with the weights.
fn descriptions(merge: &Merge) -> Vec<SideFile> {
    let Some(directory) = merge.inputs.base.directory() else { return Vec::new() };
    let left = merge.plan.not_carried.iter().map(|left| &left.file);
    let described = left.filter(|file| SIDE_FILES.iter().any(|name| file.ends_with(name)));
    described
        .map(|file| SideFile {
            relative: file.clone(),
            source: Some(directory.join(file)),
            // Nothing of it is in the result.
            content: Some(String::new()),
        })
        .collect()
}
