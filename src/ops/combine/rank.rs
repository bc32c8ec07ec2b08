//! The rank of every module: its policy, and what a budget over all modules leaves to each.

use rayon::prelude::*;

use super::carry;
use super::group::{Group, Member};
use super::module_inputs::{combine_group, module_of, weighted};
use super::open::Combine;
use super::options::ConvScope;
use crate::adapter::module::Kind;
use crate::adapter::save::{self, Sized};
use crate::error::{ErrorKind, ExpertsError, Locate, Result};
use crate::format::Metadata;
use crate::math::RankPolicy;
use crate::math::rank::policy::{Candidate, TooSmall};
use crate::ops::Progress;

/// The policy of one module.
pub(super) fn policy(combine: &Combine, group: &Group) -> Option<RankPolicy> {
    let options = &combine.options;
    let asked = options.conv_rank.filter(|_| in_conv_scope(combine, group)).or(options.rank);
    // PEFT's `svd` keeps the highest rank of the inputs if nothing else is said; so does what has no
    // low rank of its own.
    let svd = options.method.as_deref().is_some_and(|name| name == "svd") || combine.by_elements();
    asked
        .or_else(|| {
            let highest =
                combine.groups.iter().flat_map(|group| &group.members).map(|m| m.rank).max();
            svd.then(|| RankPolicy::Fixed(highest.unwrap_or(1)))
        })
        .or((!combine.keeps_factors() || highest_rank(combine, group) < usize::MAX)
            .then_some(RankPolicy::Lossless))
}

/// Whether a rank for convolutions is for a module.
fn in_conv_scope(combine: &Combine, group: &Group) -> bool {
    match combine.options.conv_scope {
        ConvScope::Spatial => group.is_spatial(),
        ConvScope::All => matches!(group.kind, Kind::Conv(_)),
    }
}

/// The highest rank that a module may have.
pub(super) fn highest_rank(combine: &Combine, group: &Group) -> usize {
    let options = &combine.options;
    let conv = options.conv_max_rank.filter(|_| in_conv_scope(combine, group));
    conv.or(options.max_rank).unwrap_or(usize::MAX)
}

/// A module's rank where it is known before its singular values are: the one that all modules together decide,
/// else its policy's number.
pub(super) fn fixed(combine: &Combine, group: &Group, rank: Option<usize>) -> Option<usize> {
    rank.or(match policy(combine, group) {
        Some(RankPolicy::Fixed(rank)) => Some(rank.min(highest_rank(combine, group))),
        _ => None,
    })
}

/// The rank of a module whose policy is a number.
fn fixed_rank(combine: &Combine, group: &Group) -> usize {
    let most = highest_rank(combine, group);
    let asked = match policy(combine, group) {
        Some(RankPolicy::Fixed(rank)) => rank.min(most),
        _ => most,
    };
    asked.min(group.outputs).min(group.inputs)
}

/// Ranks that one module alone does not decide: of a budget over all, and those that all are filled
/// up to. They need all singular values first.
pub(super) fn ranks_first(combine: &Combine) -> Result<Option<Vec<usize>>> {
    let shared = combine.options.rank.is_some_and(RankPolicy::is_global);
    if !shared && !combine.options.uniform {
        return Ok(None);
    }
    if combine.by_elements() {
        return Ok(Some(combine.groups.iter().map(|group| fixed_rank(combine, group)).collect()));
    }
    let candidates = spectra(combine, &())?;
    let ranks = combine.groups.iter().zip(&candidates).map(|(group, (candidate, stacked))| {
        policy(combine, group)
            .map_or(*stacked, |policy| policy.of(candidate).min(highest_rank(combine, group)))
    });
    match combine.options.rank.filter(|policy| policy.is_global()) {
        None => Ok(Some(ranks.collect())),
        Some(budget) => {
            let candidates: Vec<_> =
                candidates.into_iter().map(|(candidate, _)| candidate).collect();
            share_budget(combine, budget, &candidates).map(Some)
        }
    }
}

/// What every module's rank is chosen by, its singular values, and the rank that its factors have now.
pub(super) fn spectra(
    combine: &Combine,
    progress: &dyn Progress,
) -> Result<Vec<(Candidate, usize)>> {
    let candidates = combine.groups.par_iter().map(|group| {
        let inputs = weighted(&combine.adapters, group).in_tensor(&group.name)?;
        let combined = combine_group(combine, group, &inputs, None).in_tensor(&group.name)?;
        let values = combined.factors.svd().singular_values().to_vec();
        if values.iter().any(|value| !value.is_finite()) {
            let dtype = "f64";
            return Err(ErrorKind::UpdateNotFinite { dtype }).in_tensor(&group.name);
        }
        progress.advance(1);
        Ok((candidate(group, values, combined.scale), combined.factors.rank()))
    });
    candidates.collect()
}

/// Bytes of the file if modules had these ranks, as far as the convention that they are computed in tells.
pub(super) fn file_size(combine: &Combine, ranks: &[usize]) -> Result<u64> {
    let sized = combine.groups.iter().map(|group| sized(combine, group));
    let sized: Vec<Sized<'_>> = sized.collect::<Result<_>>()?;
    let (convention, dtype) = (combine.convention, combine.dtype);
    let metadata = carry::metadata(combine)?;
    save::file_size(convention, &sized, ranks, &combine.carried.replacements, dtype, &metadata)
}

fn share_budget(
    combine: &Combine,
    policy: RankPolicy,
    candidates: &[Candidate],
) -> Result<Vec<usize>> {
    let sized = combine.groups.iter().map(|group| sized(combine, group));
    let sized: Vec<Sized<'_>> = sized.collect::<Result<_>>()?;
    let metadata: Metadata = carry::metadata(combine)?;
    let (convention, dtype) = (combine.convention, combine.dtype);
    let replaced = &combine.carried.replacements;
    let bytes = |ranks: &[usize]| {
        save::file_size(convention, &sized, ranks, replaced, dtype, &metadata).unwrap_or(u64::MAX)
    };
    let most: Vec<usize> =
        combine.groups.iter().map(|group| highest_rank(combine, group)).collect();
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
    let biased =
        |member: &Member| Ok(module_of(&combine.adapters, member)?.1.added_bias().is_some());
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

pub(super) fn candidate(group: &Group, singular_values: Vec<f64>, scale: f64) -> Candidate {
    // Values of scale · up · down, as the delta has them.
    let singular_values = singular_values.into_iter().map(|value| value * scale.abs()).collect();
    let scale = group.members.first().map_or(1.0, |member| member.scale);
    Candidate { singular_values, rows: group.outputs, columns: group.inputs, scale }
}

/// Fails if a budget is below one rank everywhere, or shared out over modules that are packed into stacks.
pub(super) fn check_budget(combine: &Combine) -> Result<()> {
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
