//! What goes into one module of the result, and what its method makes of it in factors.

use super::group::{Group, Member};
use super::open::Combine;
use crate::adapter::Adapter;
use crate::adapter::module::Module;
use crate::error::{ErrorKind, Result};
use crate::method::{Combined, Problem, Weighted};

/// What goes into a module.
pub(super) fn weighted(adapters: &[Adapter], group: &Group) -> Result<Vec<Weighted>> {
    let inputs = group.members.iter().map(|member| {
        let (adapter, module) = module_of(adapters, member)?;
        let factors = adapter.factors(module)?;
        let (scale, weight) = (module.scale.value, member.weight);
        Ok(Weighted { factors, scale, weight, adapter: member.adapter })
    });
    inputs.collect()
}

/// The method's result, of methods that give one in factors.
pub(super) fn combine_group(
    combine: &Combine,
    group: &Group,
    inputs: &[Weighted],
    rank: Option<usize>,
) -> Result<Combined> {
    let mut weights: Vec<f64> = combine.options.adapters.iter().map(|input| input.weight).collect();
    for member in &group.members {
        if let Some(weight) = weights.get_mut(member.adapter) {
            *weight = member.input_weight;
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

/// The adapter and the module that a member is.
pub(super) fn module_of<'a>(
    adapters: &'a [Adapter],
    member: &Member,
) -> Result<(&'a Adapter, &'a Module)> {
    let adapter = adapters.get(member.adapter).ok_or(ErrorKind::NotFound)?;
    Ok((adapter, adapter.modules.get(member.module).ok_or(ErrorKind::NotFound)?))
}
