//! Some rows of every changed tensor, in plain f64 loops that share no arithmetic with the merge; and, for
//! a quick look, nothing but rows.

use super::exact::Exact;
use super::verdict::Report;
use crate::adapter::tensor::{element_type, read_f64};
use crate::error::Result;
use crate::format::TensorView;
use crate::ops::merge::compute::making::Making;
use crate::ops::merge::plan::layout::OutputTensor;

/// What was found in one tensor's rows.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) rows: u64,
    pub(super) elements: u64,
    /// The largest error and what rounding allows there, both relative to the tensor's update.
    pub(super) error: (f64, f64),
    /// Whether a method's result was made by the merge's own code, for want of a formula.
    pub(super) same_code: bool,
    pub(super) fault: Option<String>,
}

impl Found {
    /// Adds it to the report, but for its fault.
    pub(super) fn count(&self, report: &mut Report) {
        report.recomputed += 1;
        report.rows_recomputed += self.rows;
        report.elements += self.elements;
        report.same_code += usize::from(self.same_code);
        if self.error.0 > report.largest_error {
            (report.largest_error, report.allowed_error) = self.error;
        }
    }
}

/// Computes rows again and holds the stored ones to what one rounding (and f32 accumulation) explains.
pub(super) fn recompute(
    making: Making<'_>,
    tensor: &OutputTensor,
    base: TensorView<'_>,
    found: TensorView<'_>,
    count: usize,
) -> Result<Found> {
    let (rows, columns) = tensor.matrix;
    let mut result = Found { same_code: tensor.plan.method().is_some(), ..Found::default() };
    let Some(element) = element_type(tensor.dtype).filter(|_| rows * columns > 0) else {
        return Ok(result);
    };
    let exact = Exact::new(making, tensor, base)?;
    let (mut update, mut largest, mut errors) = (0.0_f64, 0.0_f64, Vec::new());
    let mut worst = 0.0;
    for row in sample(rows, count) {
        let (values, bounds) = exact.row(row)?;
        let stored = read_f64(found, row * columns, columns)?;
        let old = before(base, row * columns, columns)?;
        result.rows += 1;
        result.elements += columns as u64;
        let mut most = (0.0, 0.0);
        for (column, (((value, bound), got), old)) in
            values.iter().zip(&bounds).zip(&stored).zip(&old).enumerate()
        {
            let distance = if got == value { 0.0 } else { (got - value).abs() };
            let allowed = element.ulp(*value) * 0.5 * (1.0 + 1e-9) + bound;
            update = update.max((value - old).abs());
            largest = largest.max(value.abs());
            if distance > most.0 {
                most = (distance, allowed);
            }
            // Not `distance > allowed`, which a NaN would pass.
            let fits = distance <= allowed;
            if !fits && (result.fault.is_none() || distance > worst) {
                worst = distance;
                let what = format!("row {row}, column {column} is {got}, expected {value}");
                result.fault = Some(what);
            }
        }
        errors.push(most);
    }
    // Where nothing is added, a value's own size says what its rounding is.
    let size = if update > 0.0 { update } else { largest };
    if size > 0.0 {
        let relative = errors.into_iter().map(|(error, allowed)| (error / size, allowed / size));
        result.error =
            relative.fold((0.0, 0.0), |most, next| if next.0 > most.0 { next } else { most });
    }
    Ok(result)
}

/// Values of the base; of rows that it lacks, 0.
fn before(base: TensorView<'_>, first: usize, count: usize) -> Result<Vec<f64>> {
    let there = base.spec.elements().saturating_sub(first).min(count);
    let mut values = read_f64(base, first.min(base.spec.elements()), there)?;
    values.resize(count, 0.0);
    Ok(values)
}

/// What is wrong with some rows that should be the base's very bytes; how many were compared.
pub(super) fn compare(
    tensor: &OutputTensor,
    base: TensorView<'_>,
    found: TensorView<'_>,
    count: usize,
) -> Result<(u64, Option<String>)> {
    let (rows, _) = tensor.matrix;
    let width = tensor.bytes() / rows.max(1) as u64;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let sampled = sample(rows, count);
    for row in &sampled {
        let range = *row as u64 * width..(*row as u64 + 1) * width;
        if base.bytes(range.clone(), &mut left)? != found.bytes(range, &mut right)? {
            let fault = format!("row {row} differs from the base's");
            return Ok((sampled.len() as u64, Some(fault)));
        }
    }
    Ok((sampled.len() as u64, None))
}

/// The first row, the last, and others spread evenly between.
fn sample(rows: usize, count: usize) -> Vec<usize> {
    let count = count.min(rows);
    let mut sampled: Vec<usize> =
        (0..count).map(|at| at * rows.saturating_sub(1) / (count - 1).max(1)).collect();
    sampled.dedup();
    sampled
}
