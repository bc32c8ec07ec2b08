//! From groups of factors to the result's factors, module by module, in parallel.

use rayon::prelude::*;
use serde::Serialize;

use super::elements;
use super::group::Group;
use super::module_inputs::{module_of, weighted};
use super::open::Combine;
use super::outcome::{self, Outcome};
use super::rank::{fixed, highest_rank, ranks_first};
use crate::adapter::convention::Part;
use crate::adapter::save::{NewModule, bias_part};
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, Locate, Result};
use crate::math::linalg::grams::Grams;
use crate::math::linalg::spill::Spill;
use crate::math::{LowRank, Matrix};
use crate::method::params::LAMBDA;
use crate::method::{Combined, Weighted};
use crate::ops::Progress;

/// One module of a report.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ModuleReport {
    /// Its name.
    pub name: String,
    /// Sum of the inputs' ranks.
    pub rank_before: usize,
    /// Its rank now.
    pub rank: usize,
    /// ‖written‖² / ‖combined‖².
    pub energy_kept: f64,
    /// ‖combined − written‖ / ‖combined‖.
    pub relative_error: f64,
}

/// A computed module, and the sums that reports are made of.
#[derive(Debug, Clone)]
pub(super) struct ModuleSums {
    pub(super) report: ModuleReport,
    /// ‖combined‖², and what of it was written and dropped.
    pub(super) combined: f64,
    pub(super) kept: f64,
    pub(super) dropped: f64,
    /// ‖Σ wᵢΔᵢ‖², and the squared distance of the combined from it.
    pub(super) exact: f64,
    pub(super) off_sum: f64,
    /// What the inputs write over each other.
    pub(super) spill: Spill,
    pub(super) parameters_before: u64,
    pub(super) parameters_after: u64,
}

/// Computes all groups. Modules are independent and each is computed by one thread, so the result
/// does not depend on how many there are.
pub(super) fn all(
    combine: &Combine,
    progress: &dyn Progress,
) -> Result<(Vec<NewModule>, Vec<ModuleSums>)> {
    let work: u64 = combine.groups.iter().map(|group| (group.inputs + group.outputs) as u64).sum();
    let ranks = ranks_first(combine)?;
    let fill = combine.options.uniform.then(|| ranks.iter().flatten().copied().max().unwrap_or(1));
    progress.begin(work);
    let indexed = combine.groups.par_iter().enumerate();
    let done = indexed.map(|(at, group)| {
        let rank = ranks.as_ref().and_then(|ranks| ranks.get(at).copied());
        let done = compute_module(combine, group, rank, fill).in_tensor(&group.name);
        progress.advance((group.inputs + group.outputs) as u64);
        done
    });
    let done: Vec<(NewModule, ModuleSums)> = done.collect::<Result<_>>()?;
    Ok(done.into_iter().unzip())
}

/// Zero directions up to `rank`; the delta stays what it was.
fn fill_up(factors: &LowRank, rank: usize) -> LowRank {
    let (rows, columns, filled) = (factors.rows(), factors.columns(), factors.rank());
    let (mut up, mut down) = (Matrix::zeros(rows, rank), Matrix::zeros(rank, columns));
    up.columns_mut(0, filled).copy_from(&factors.up);
    down.rows_mut(0, filled).copy_from(&factors.down);
    LowRank::new(up, down)
}

/// What the method made of a module, cut to its rank.
fn outcome(
    combine: &Combine,
    group: &Group,
    inputs: &[Weighted],
    rank: Option<usize>,
) -> Result<Outcome> {
    match combine.method.elementwise().filter(|_| combine.by_elements()) {
        Some(rule) => {
            let most = highest_rank(combine, group);
            let rank = fixed(combine, group, rank).unwrap_or(most);
            Ok(elements::combine(combine, group, inputs, rule, rank))
        }
        None => outcome::by_factors(combine, group, inputs, rank),
    }
}

/// Computes one module; `fill` is the rank that all are filled up to.
fn compute_module(
    combine: &Combine,
    group: &Group,
    rank: Option<usize>,
    fill: Option<usize>,
) -> Result<(NewModule, ModuleSums)> {
    let inputs = weighted(&combine.adapters, group)?;
    let Outcome { mut written, kept, total, off_sum, exact, grams } =
        outcome(combine, group, &inputs, rank)?;
    if !(kept.is_finite() && total.is_finite() && off_sum.is_finite()) {
        let dtype = if combine.by_elements() { "f32" } else { "f64" };
        return Err(ErrorKind::UpdateNotFinite { dtype }.into());
    }
    let spill = spill(combine.adapters.len(), &inputs, grams.as_ref());
    if let Some(rank) = fill {
        written.factors = fill_up(&written.factors, rank.max(written.factors.rank()));
    }
    let rank = written.factors.rank();
    let rank_before: usize = group.members.iter().map(|member| member.rank).sum();
    let size = (group.outputs + group.inputs) as u64;
    let share = |part: f64, otherwise: f64| if total > 0.0 { part / total } else { otherwise };
    let dropped = (total - kept).max(0.0);
    let part = bias_part(combine.convention);
    let divided = if part == Part::UpBias { written.scale } else { 1.0 };
    let bias = bias(combine, group, divided)?;
    let bias = bias.as_deref().map(|values| (part, values));
    let (factors, scale) = (&written.factors, written.scale);
    let module = NewModule::new(&group.name, &group.kind, factors, scale, bias, combine.dtype)?;
    if module.is_zero() && is_more_than_rounding(&written, &inputs) {
        let loudest = inputs.iter().map(|input| (input.weight * input.scale).abs());
        let (value, dtype) = (loudest.fold(0.0, f64::max), combine.dtype.to_string());
        return Err(ErrorKind::Underflow { value, dtype }.into());
    }
    let done = ModuleSums {
        report: ModuleReport {
            name: group.name.clone(),
            rank_before,
            rank,
            energy_kept: share(kept, 1.0),
            relative_error: share(dropped, 0.0).sqrt(),
        },
        combined: total,
        kept,
        dropped,
        exact: exact.unwrap_or(total),
        off_sum,
        spill,
        parameters_before: rank_before as u64 * size,
        parameters_after: rank as u64 * size,
    };
    Ok((module, done))
}

/// What the inputs write over each other; by inner products that are known already, if they are.
fn spill(adapters: usize, inputs: &[Weighted], grams: Option<&Grams>) -> Spill {
    if let Some(grams) = grams {
        let numbers: Vec<usize> = inputs.iter().map(|input| input.adapter).collect();
        return Spill::of_grams(adapters, &numbers, grams);
    }
    let deltas: Vec<_> = inputs.iter().map(|input| (input.adapter, input.delta())).collect();
    Spill::of_module(adapters, &deltas)
}

/// Whether a result is more than what rounding leaves of updates that cancel, by its largest elements.
fn is_more_than_rounding(written: &Combined, inputs: &[Weighted]) -> bool {
    // Of rounding in f64, with room for what dimensions and ranks add up to.
    const ROUNDING: f64 = 1e-12;
    let size = |factors: &LowRank| {
        let largest = |m: &Matrix| m.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        largest(&factors.up) * largest(&factors.down)
    };
    let of = |input: &Weighted| (input.weight * input.scale).abs() * size(&input.factors);
    let loudest = inputs.iter().map(of).fold(0.0, f64::max);
    size(&written.factors) * written.scale.abs() > ROUNDING * loudest
}

/// λ·Σ wᵢ·sᵢ·bᵢ of the inputs' biases, over what the result multiplies it by.
fn bias(combine: &Combine, group: &Group, scale: f64) -> Result<Option<Vec<f64>>> {
    let mut sum: Option<Vec<f64>> = None;
    let lambda = combine.settings(group).number(&LAMBDA);
    for member in &group.members {
        let (adapter, module) = module_of(&combine.adapters, member)?;
        let Some((name, scale_of_bias)) = module.added_bias() else { continue };
        let view = adapter.file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
        let values = read_f64(view, 0, module.outputs)?;
        let sum = sum.get_or_insert_with(|| vec![0.0; module.outputs]);
        let factor = lambda * member.weight * scale_of_bias / scale;
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum += factor * value;
        }
    }
    Ok(sum)
}
