//! A merge from the options to the report.

use std::path::PathBuf;

use super::check::comparison::check;
use super::open::Merge;
use super::plan::options::Options;
use super::report::Report;
use super::trial::prepare;
use super::write::{resume, stream};
use crate::adapter::convention;
use crate::adapter::write::check_ending;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Checkpoint;
use crate::format::staging::free_space;
use crate::ops::shared::{card, left_over};
use crate::ops::{Progress, check_output, receipt};

/// Opens all inputs and decides the whole output.
///
/// # Errors
/// Everything a user can get wrong; nothing has been written then.
pub fn plan(options: &Options) -> Result<Merge> {
    let inputs = options.adapters.iter().map(|adapter| adapter.path.as_path());
    let inputs = inputs.chain([options.base.as_path()]);
    check_output(&options.output, inputs, options.force)?;
    let mut merge = prepare(options)?;
    merge.plan.prediction = merge.predict()?;
    let files = merge.input_files();
    check_output(&options.output, files.iter().map(PathBuf::as_path), options.force)?;
    if let Some(receipt) = &options.receipt {
        receipt::check_place(receipt, &options.output)?;
        check_output(receipt, files.iter().map(PathBuf::as_path), options.force)?;
    }
    if let Some(residual) = &options.residual {
        check_ending(convention::peft(), residual)?;
        let inputs = files.iter().map(PathBuf::as_path).chain([options.output.as_path()]);
        check_output(residual, inputs, options.force)?;
    }
    if options.card {
        card::check(&options.output, merge.plan.one_file, options.force)?;
        merge.plan.make_room_for_card();
    }
    let target = options.output.symlink_metadata();
    if merge.plan.one_file && target.is_ok_and(|target| target.is_dir()) {
        let reason = "it is a directory, which one file does not replace".to_owned();
        return Err(ErrorKind::BadOption(reason)).in_file(&options.output);
    }
    if options.resume {
        merge.resume = Some(resume::key(options, &merge.plan, &files)?);
    }
    merge.plan.warnings.extend(left_over::warnings(&options.output));
    let kept = if options.resume { resume::kept_bytes(&merge.plan) } else { 0 };
    let needed = merge.plan.bytes.saturating_sub(kept);
    if let Some(free) = free_space(&options.output)
        && free < needed
    {
        return Err(ErrorKind::DiskFull { needed, free }).in_file(&options.output);
    }
    Ok(merge)
}

impl Merge {
    /// Writes the output.
    ///
    /// # Errors
    /// I/O, a base value that is not finite, an overflow of the output's dtype, an input that changed
    /// meanwhile; nothing is left at the output's path then.
    pub fn run(&self, progress: &dyn Progress) -> Result<Report> {
        let written = stream::write(self, progress)?;
        let mut report = self.report(&written.stats);
        report.shards_reused = written.reused;
        report.receipt_bytes = written.beside.receipt;
        report.residual = written.beside.residual;
        if self.options.verify {
            let merged = Checkpoint::open(&self.plan.output, self.options.open.access)?;
            report.verification = Some(check(self, &merged, None, progress)?);
        }
        Ok(report)
    }
}
