//! From groups of factors to the result's factors, module by module, in parallel.

use rayon::prelude::*;
use serde::Serialize;

use super::group::{Group, Member};
use super::{Combine, ConvScope, elements};
use crate::adapter::Adapter;
use crate::adapter::convention::Part;
use crate::adapter::module::Module;
use crate::adapter::save::{self, NewModule, Sized, bias_part};
use crate::error::{ErrorKind, ExpertsError, Locate, Result};
use crate::format::Metadata;
use crate::math::linalg::spill::Spill;
use crate::math::rank::policy::{Candidate, TooSmall};
use crate::math::{LowRank, Matrix, RankPolicy};
use crate::method::params::LAMBDA;
use crate::method::{Combined, Problem, Sketch, Weighted};
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
pub(super) struct Done {
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
) -> Result<(Vec<NewModule>, Vec<Done>)> {
    let work: u64 = combine.groups.iter().map(|group| (group.inputs + group.outputs) as u64).sum();
    let ranks = ranks_first(combine)?;
    let fill = combine.options.uniform.then(|| ranks.iter().flatten().copied().max().unwrap_or(1));
    progress.begin(work);
    let indexed = combine.groups.par_iter().enumerate();
    let done = indexed.map(|(at, group)| {
        let rank = ranks.as_ref().and_then(|ranks| ranks.get(at).copied());
        let done = one(combine, group, rank, fill).in_tensor(&group.name);
        progress.advance((group.inputs + group.outputs) as u64);
        done
    });
    let done: Vec<(NewModule, Done)> = done.collect::<Result<_>>()?;
    Ok(done.into_iter().unzip())
}

/// Zero directions up to `rank`; the delta stays what it was.
fn fill_up(factors: &LowRank, rank: usize) -> LowRank {
    let (rows, columns, own) = (factors.rows(), factors.columns(), factors.rank());
    let (mut up, mut down) = (Matrix::zeros(rows, rank), Matrix::zeros(rank, columns));
    up.columns_mut(0, own).copy_from(&factors.up);
    down.rows_mut(0, own).copy_from(&factors.down);
    LowRank::new(up, down)
}

/// The policy of one module.
fn policy(combine: &Combine, group: &Group) -> Option<RankPolicy> {
    let options = &combine.options;
    let own = options.conv_rank.filter(|_| in_conv_scope(combine, group)).or(options.rank);
    // PEFT's `svd` keeps the highest rank of the inputs if nothing else is said; so does what has no
    // low rank of its own.
    let svd = options.method.as_deref().is_some_and(|name| name == "svd") || combine.by_elements();
    own.or_else(|| {
        let highest = combine.groups.iter().flat_map(|group| &group.members).map(|m| m.rank).max();
        svd.then(|| RankPolicy::Fixed(highest.unwrap_or(1)))
    })
    .or((!combine.keeps_factors() || highest(combine, group) < usize::MAX)
        .then_some(RankPolicy::Lossless))
}

/// Whether a rank for convolutions is for a module.
fn in_conv_scope(combine: &Combine, group: &Group) -> bool {
    match combine.options.conv_scope {
        ConvScope::Spatial => group.is_spatial(),
        ConvScope::All => matches!(group.kind, crate::adapter::module::Kind::Conv(_)),
    }
}

/// The highest rank that a module may have.
fn highest(combine: &Combine, group: &Group) -> usize {
    let options = &combine.options;
    let conv = options.conv_max_rank.filter(|_| in_conv_scope(combine, group));
    conv.or(options.max_rank).unwrap_or(usize::MAX)
}

/// The rank of a module whose policy is a number.
fn fixed_rank(combine: &Combine, group: &Group) -> usize {
    let most = highest(combine, group);
    let asked = match policy(combine, group) {
        Some(RankPolicy::Fixed(rank)) => rank.min(most),
        _ => most,
    };
    asked.min(group.outputs).min(group.inputs)
}

/// Ranks that one module alone does not decide: of a budget over all, and those that all are filled
/// up to. They need all singular values first.
fn ranks_first(combine: &Combine) -> Result<Option<Vec<usize>>> {
    let shared = combine.options.rank.is_some_and(RankPolicy::is_global);
    if !shared && !combine.options.uniform {
        return Ok(None);
    }
    if combine.by_elements() {
        return Ok(Some(combine.groups.iter().map(|group| fixed_rank(combine, group)).collect()));
    }
    let candidates = combine.groups.par_iter().map(|group| {
        let inputs = weighted(&combine.adapters, group).in_tensor(&group.name)?;
        let combined = combine_group(combine, group, &inputs, None).in_tensor(&group.name)?;
        let values = combined.factors.svd().singular_values().to_vec();
        if values.iter().any(|value| !value.is_finite()) {
            let dtype = "f64";
            return Err(ErrorKind::UpdateNotFinite { dtype }).in_tensor(&group.name);
        }
        Ok((candidate(group, values, combined.scale), combined.factors.rank()))
    });
    let candidates: Vec<(Candidate, usize)> = candidates.collect::<Result<_>>()?;
    let own = combine.groups.iter().zip(&candidates).map(|(group, (candidate, stacked))| {
        policy(combine, group)
            .map_or(*stacked, |policy| policy.of(candidate).min(highest(combine, group)))
    });
    match combine.options.rank.filter(|policy| policy.is_global()) {
        None => Ok(Some(own.collect())),
        Some(budget) => {
            let candidates: Vec<_> =
                candidates.into_iter().map(|(candidate, _)| candidate).collect();
            share_budget(combine, budget, &candidates).map(Some)
        }
    }
}

/// Fails if a method does not take these inputs, or a budget is below one rank everywhere.
pub(super) fn check(combine: &Combine) -> Result<()> {
    for group in &combine.groups {
        let inputs: Vec<_> =
            group.members.iter().map(|member| (member.rank, member.scale)).collect();
        let (adapters, settings) = (combine.adapters.len(), combine.settings(group));
        (combine.method.check)(&Sketch { inputs: &inputs, adapters, settings })
            .map_err(|refusal| ErrorKind::BadOption(refusal.to_string()))
            .in_tensor(&group.name)?;
    }
    // Without singular values, nothing but the one rank everywhere is asked for.
    let least = combine.groups.iter().map(|group| candidate(group, Vec::new(), 1.0));
    let budget = combine.options.rank.filter(|policy| policy.is_global());
    let sized = matches!(budget, Some(RankPolicy::Size(_) | RankPolicy::Parameters(_)));
    let stacks = combine.adapters.iter().any(|adapter| !adapter.stacks.is_empty());
    if sized && stacks && combine.convention.hooks.pack.is_some() {
        return Err(ExpertsError::Budget.into());
    }
    budget.map_or(Ok(()), |policy| {
        share_budget(combine, policy, &least.collect::<Vec<_>>()).map(|_| ())
    })
}

fn share_budget(
    combine: &Combine,
    policy: RankPolicy,
    candidates: &[Candidate],
) -> Result<Vec<usize>> {
    let sized = combine.groups.iter().map(|group| sized(combine, group));
    let sized: Vec<Sized<'_>> = sized.collect::<Result<_>>()?;
    let metadata: Metadata = super::carry::metadata(combine)?;
    let (convention, dtype) = (combine.convention, combine.dtype);
    let replaced = &combine.carried.replacements;
    let bytes = |ranks: &[usize]| {
        save::file_size(convention, &sized, ranks, replaced, dtype, &metadata).unwrap_or(u64::MAX)
    };
    let most: Vec<usize> = combine.groups.iter().map(|group| highest(combine, group)).collect();
    let shared = if combine.options.uniform {
        policy.share_evenly(candidates, &most, &bytes)
    } else {
        policy.share(candidates, &most, &bytes)
    };
    shared.map_err(|TooSmall { least }| {
        let unit = if matches!(policy, RankPolicy::Size(_)) { "bytes" } else { "parameters" };
        ErrorKind::BudgetTooSmall { budget: policy.to_string(), least, unit }.into()
    })
}

fn sized<'a>(combine: &Combine, group: &'a Group) -> Result<Sized<'a>> {
    let biased = |member: &Member| Ok(parts(&combine.adapters, member)?.1.added_bias().is_some());
    let biased: Vec<bool> = group.members.iter().map(biased).collect::<Result<_>>()?;
    Ok(Sized {
        name: &group.name,
        kind: &group.kind,
        shape: (group.outputs, group.inputs),
        scale: written_scale(combine, group),
        biased: biased.contains(&true),
    })
}

/// The scale that a fitted module is written with.
pub(super) fn written_scale(combine: &Combine, group: &Group) -> f64 {
    let old = group.members.first().map_or(1.0, |member| member.scale);
    if combine.options.keep_scale && old > 0.0 { old } else { 1.0 }
}

fn candidate(group: &Group, singular_values: Vec<f64>, scale: f64) -> Candidate {
    // Values of scale · up · down, as the delta has them.
    let singular_values = singular_values.into_iter().map(|value| value * scale.abs()).collect();
    let scale = group.members.first().map_or(1.0, |member| member.scale);
    Candidate { singular_values, rows: group.outputs, columns: group.inputs, scale }
}

/// What goes into a module.
pub(super) fn weighted(adapters: &[Adapter], group: &Group) -> Result<Vec<Weighted>> {
    let inputs = group.members.iter().map(|member| {
        let (adapter, module) = parts(adapters, member)?;
        let factors = adapter.factors(module)?;
        let (scale, weight) = (module.scale.value, member.weight);
        Ok(Weighted { factors, scale, weight, adapter: member.adapter })
    });
    inputs.collect()
}

/// The method's result, of methods that give one in factors.
fn combine_group(
    combine: &Combine,
    group: &Group,
    inputs: &[Weighted],
    rank: Option<usize>,
) -> Result<Combined> {
    let mut weights: Vec<f64> = combine.options.adapters.iter().map(|input| input.weight).collect();
    for member in &group.members {
        if let Some(weight) = weights.get_mut(member.adapter) {
            *weight = member.own;
        }
    }
    let problem = Problem {
        rows: group.outputs,
        columns: group.inputs,
        inputs,
        weights: &weights,
        settings: combine.settings(group),
        compat: combine.options.compat,
        rank,
    };
    let combined = match combine.method.elementwise() {
        Some(rule) => combine.space.combine(rule, &problem, &group.name),
        None => combine.method.combine(&problem),
    };
    combined.ok_or_else(|| ErrorKind::NotFound.into())
}

fn parts<'a>(adapters: &'a [Adapter], member: &Member) -> Result<(&'a Adapter, &'a Module)> {
    let adapter = adapters.get(member.adapter).ok_or(ErrorKind::NotFound)?;
    Ok((adapter, adapter.modules.get(member.module).ok_or(ErrorKind::NotFound)?))
}

/// What a method made of a module, cut to its rank.
pub(super) struct Outcome {
    pub(super) written: Combined,
    /// ‖written‖² and ‖combined‖².
    pub(super) kept: f64,
    pub(super) total: f64,
    /// ‖combined − Σ wᵢΔᵢ‖², and ‖Σ wᵢΔᵢ‖² if it is another than the combined.
    pub(super) off_sum: f64,
    pub(super) exact: Option<f64>,
}

fn outcome(
    combine: &Combine,
    group: &Group,
    inputs: &[Weighted],
    rank: Option<usize>,
) -> Result<Outcome> {
    let policy = policy(combine, group);
    let most = highest(combine, group);
    let known = rank.or(match policy {
        Some(RankPolicy::Fixed(rank)) => Some(rank.min(most)),
        _ => None,
    });
    if let Some(rule) = combine.method.elementwise().filter(|_| combine.by_elements()) {
        let outcome = elements::combine(combine, group, inputs, rule, known.unwrap_or(most));
        return Ok(outcome);
    }
    let combined = combine_group(combine, group, inputs, known)?;
    let (off_sum, exact) = distance(combine, group, &combined, inputs);
    let (written, kept, total) = match policy {
        None => {
            let energy = combined.factors.squared_norm() * combined.scale * combined.scale;
            (combined, energy, energy)
        }
        Some(policy) => truncate(combine, group, &combined, policy, rank),
    };
    Ok(Outcome { written, kept, total, off_sum, exact })
}

fn one(
    combine: &Combine,
    group: &Group,
    rank: Option<usize>,
    fill: Option<usize>,
) -> Result<(NewModule, Done)> {
    let inputs = weighted(&combine.adapters, group)?;
    let Outcome { mut written, kept, total, off_sum, exact } =
        outcome(combine, group, &inputs, rank)?;
    if !(kept.is_finite() && total.is_finite() && off_sum.is_finite()) {
        let dtype = if combine.by_elements() { "f32" } else { "f64" };
        return Err(ErrorKind::UpdateNotFinite { dtype }.into());
    }
    let weighted: Vec<_> = inputs.iter().map(|input| (input.adapter, input.delta())).collect();
    let spill = Spill::of_module(combine.adapters.len(), &weighted);
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
    let done = Done {
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

/// (‖combined − Σ wᵢΔᵢ‖², ‖Σ wᵢΔᵢ‖²); by the singular values of the difference, since the difference
/// of norms would be lost in rounding. The exact methods are not measured against themselves.
fn distance(
    combine: &Combine,
    group: &Group,
    combined: &Combined,
    inputs: &[Weighted],
) -> (f64, Option<f64>) {
    if combine.method.laws.contains(&crate::method::Law::WeightedSum) {
        return (0.0, None);
    }
    let deltas: Vec<LowRank> = inputs.iter().map(Weighted::delta).collect();
    let exact = LowRank::sum(group.outputs, group.inputs, &deltas);
    let norm = exact.squared_norm();
    let minus = LowRank::new(&combined.factors.up * -combined.scale, combined.factors.down.clone());
    let difference = LowRank::sum(group.outputs, group.inputs, &[exact, minus]).svd();
    let squares = difference.singular_values().iter().map(|value| value * value);
    (squares.sum(), Some(norm))
}

/// The best approximation that the policy asks for: (factors, energy kept, energy before).
fn truncate(
    combine: &Combine,
    group: &Group,
    combined: &Combined,
    policy: RankPolicy,
    shared: Option<usize>,
) -> (Combined, f64, f64) {
    let svd = combined.factors.svd();
    let candidate = candidate(group, svd.singular_values().to_vec(), combined.scale);
    let most = highest(combine, group);
    let rank = shared.unwrap_or_else(|| policy.of(&candidate).min(most));
    let energies = candidate.singular_values.iter().map(|value| value * value);
    let (kept, total): (f64, f64) = (energies.clone().take(rank).sum(), energies.sum());
    let mut factors = svd.truncate(rank);
    if factors.rank() == 0 {
        factors = LowRank::new(Matrix::zeros(group.outputs, 1), Matrix::zeros(1, group.inputs));
    }
    let scale = written_scale(combine, group);
    // scale · up · down stays what it was: the change is shared by both factors.
    let share = (combined.scale.abs() / scale).sqrt();
    let factors =
        LowRank::new(factors.up * share, factors.down * (share * combined.scale.signum()));
    (Combined { factors, scale }, kept, total)
}

/// λ·Σ wᵢ·sᵢ·bᵢ of the inputs' biases, over what the result multiplies it by.
fn bias(combine: &Combine, group: &Group, scale: f64) -> Result<Option<Vec<f64>>> {
    let mut sum: Option<Vec<f64>> = None;
    let lambda = combine.settings(group).number(&LAMBDA);
    for member in &group.members {
        let (adapter, module) = parts(&combine.adapters, member)?;
        let Some((name, own)) = module.added_bias() else { continue };
        let view = adapter.file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
        let values = crate::adapter::tensor::read_f64(view, 0, module.outputs)?;
        let sum = sum.get_or_insert_with(|| vec![0.0; module.outputs]);
        let factor = lambda * member.weight * own / scale;
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum += factor * value;
        }
    }
    Ok(sum)
}
