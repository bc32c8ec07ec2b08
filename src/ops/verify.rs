//! verify: is this checkpoint what the merge should have written?
//!
//! Copied tensors are compared byte by byte; of every changed tensor some rows are computed again in
//! f64, by plain loops that share nothing with the kernel, and held to what one rounding (and f32
//! accumulation) can explain.

use std::path::PathBuf;

use serde::Serialize;

use super::Progress;
use super::base::open_model;
use super::merge::exact::Exact;
use super::merge::{self, Action, Change, Merge, OutputTensor};
use crate::adapter::tensor::{element_type, read_f64};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Checkpoint, TensorView};

/// Rows of each changed tensor that are computed again.
const SAMPLED_ROWS: usize = 8;
/// Bytes compared at a time.
const CHUNK: u64 = 4 << 20;
/// Faults that are listed; more only count.
const LISTED: usize = 100;

/// What to verify: the merged checkpoint, and the options of the merge that should have made it
/// (whose `output` is not looked at).
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The checkpoint to judge.
    pub merged: PathBuf,
    /// How it should have been made.
    pub merge: merge::Options,
}

/// A tensor that is not what it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    /// Its name.
    pub tensor: String,
    /// What is wrong with it.
    pub what: String,
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Whether everything is as it should be.
    pub ok: bool,
    /// Tensors compared byte by byte.
    pub copied: usize,
    /// Tensors of which rows were computed again.
    pub recomputed: usize,
    /// Elements computed again.
    pub elements: u64,
    /// The largest distance from the f64 result, in units in the last place of the stored type.
    pub max_ulps: f64,
    /// How many faults there are.
    pub fault_count: usize,
    /// The first of them.
    pub faults: Vec<Fault>,
}

/// Compares `options.merged` with what `options.merge` would write.
///
/// # Errors
/// If either cannot be read or planned; differences are no error but faults of the report.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Report> {
    let merge = merge::prepare(&options.merge)?;
    let access = options.merge.open.access;
    let merged = open_model(&options.merged, "a merged", &[], access)?;
    check(&merge, &merged, progress)
}

/// Compares an open checkpoint with a plan.
pub(super) fn check(merge: &Merge, merged: &Checkpoint, progress: &dyn Progress) -> Result<Report> {
    progress.begin(merge.plan.bytes);
    let mut checker = Checker { merge, merged, report: Report::default() };
    let mut expected = std::collections::BTreeSet::new();
    for tensor in merge.plan.tensors() {
        expected.insert(tensor.full_name.as_str());
        checker.tensor(tensor)?;
        progress.advance(merge.base.tensor(&tensor.base).map_or(0, |view| view.spec.bytes()));
    }
    for name in merged.names().filter(|name| !expected.contains(name)) {
        checker.fault(name, "it should not be there".to_owned());
    }
    let mut report = checker.report;
    report.ok = report.fault_count == 0;
    Ok(report)
}

struct Checker<'a> {
    merge: &'a Merge,
    merged: &'a Checkpoint,
    report: Report,
}

impl Checker<'_> {
    fn fault(&mut self, tensor: &str, what: String) {
        self.report.fault_count += 1;
        if self.report.faults.len() < LISTED {
            self.report.faults.push(Fault { tensor: tensor.to_owned(), what });
        }
    }

    fn tensor(&mut self, tensor: &OutputTensor) -> Result<()> {
        let name = &tensor.full_name;
        let Some(found) = self.merged.tensor(name) else {
            self.fault(name, "it is missing".to_owned());
            return Ok(());
        };
        if found.spec.dtype != tensor.dtype || found.spec.shape != tensor.shape {
            let (dtype, shape) = (found.spec.dtype, &found.spec.shape);
            let what =
                format!("it is {dtype} {shape:?}, expected {} {:?}", tensor.dtype, tensor.shape);
            self.fault(name, what);
            return Ok(());
        }
        let base =
            self.merge.base.tensor(&tensor.base).ok_or(ErrorKind::NotFound).in_tensor(name)?;
        match &tensor.action {
            Action::Copy => {
                self.report.copied += 1;
                if let Some(at) = first_difference(base, found)? {
                    self.fault(
                        name,
                        format!("its bytes differ from the base's, first at byte {at}"),
                    );
                }
                Ok(())
            }
            Action::Convert => self.rows(tensor, &Change::default(), base, found),
            Action::Change(change) => self.rows(tensor, change, base, found),
        }
    }

    fn rows(
        &mut self,
        tensor: &OutputTensor,
        change: &Change,
        base: TensorView<'_>,
        found: TensorView<'_>,
    ) -> Result<()> {
        let (rows, columns) = tensor.matrix();
        let Some(element) = element_type(tensor.dtype).filter(|_| rows * columns > 0) else {
            return Ok(());
        };
        self.report.recomputed += 1;
        let exact = Exact::new(self.merge, change, base, (rows, columns))?;
        let mut worst: Option<(f64, String)> = None;
        for row in sample(rows) {
            let (values, bounds) = exact.row(row)?;
            let stored = read_f64(found, row * columns, columns)?;
            self.report.elements += columns as u64;
            for (column, ((value, bound), got)) in
                values.iter().zip(&bounds).zip(&stored).enumerate()
            {
                let ulp = element.ulp(*value);
                let distance = if got == value { 0.0 } else { (got - value).abs() };
                self.report.max_ulps = self.report.max_ulps.max(distance / ulp);
                let allowed = ulp * 0.5 * (1.0 + 1e-9) + bound;
                // Not `distance > allowed`, which a NaN would pass.
                let fits = distance <= allowed;
                if !fits && worst.as_ref().is_none_or(|(most, _)| distance > *most) {
                    let what = format!("row {row}, column {column} is {got}, expected {value}");
                    worst = Some((distance, what));
                }
            }
        }
        if let Some((_, what)) = worst {
            self.fault(&tensor.full_name, what);
        }
        Ok(())
    }
}

/// First byte in which two tensors of one size differ.
fn first_difference(a: TensorView<'_>, b: TensorView<'_>) -> Result<Option<u64>> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < a.spec.bytes() {
        let end = (at + CHUNK).min(a.spec.bytes());
        let (x, y) = (a.bytes(at..end, &mut left)?, b.bytes(at..end, &mut right)?);
        if x != y {
            let within = x.iter().zip(y).position(|(x, y)| x != y).unwrap_or(0);
            return Ok(Some(at + within as u64));
        }
        at = end;
    }
    Ok(None)
}

/// The first row, the last, and others spread evenly between.
fn sample(rows: usize) -> Vec<usize> {
    let count = SAMPLED_ROWS.min(rows);
    let mut sampled: Vec<usize> =
        (0..count).map(|at| at * rows.saturating_sub(1) / (count - 1).max(1)).collect();
    sampled.dedup();
    sampled
}
