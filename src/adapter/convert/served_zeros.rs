//! Zeros for what a program does not do without, and targets as it reads them.

use std::collections::{BTreeMap, BTreeSet};

use super::served::{ExpertForm, MATRICES, Served, expert_of};
use super::zeros::{missing_layers, zeros};
use crate::adapter::convention::Part;
use crate::adapter::save::{NewAdapter, NewModule};
use crate::error::{ConvertError, Result};

/// Adds zeros for what a program does not do without, and says the targets as it reads them.
///
/// # Errors
/// If only a base could tell how large the zeros are.
pub(super) fn complete(served: &Served<'_>, new: &mut NewAdapter) -> Result<()> {
    let missing = missing_in_stacks(served, &new.modules);
    new.modules.extend(missing);
    if !served.dotted {
        return Ok(());
    }
    let mut added = Vec::new();
    for names in served.takes.complete {
        added.extend(siblings(served, &new.modules, names)?);
    }
    if served.expert_form() == Some(ExpertForm::Single) {
        added.extend(missing_experts(served, &new.modules));
    }
    if served.expert_form() == Some(ExpertForm::Stacks) {
        added.extend(missing_stacks(new));
    }
    if let Some(base) = served.reference.as_ref().filter(|_| served.takes.every_layer) {
        added.extend(missing_layers(&new.modules, base));
    }
    new.modules.extend(added);
    if served.takes.leaf_targets {
        // An expert's matrices are targets by the first of their names, whatever they are called.
        let last = |module: &NewModule| {
            let last = module.name.rsplit('.').next().unwrap_or_default();
            let first = |names: &[&'static str; 3]| {
                MATRICES.first()?.get(names.iter().position(|name| *name == last)?).copied()
            };
            let expert = expert_of(&module.name).and_then(|_| MATRICES.iter().find_map(first));
            expert.unwrap_or(last).to_owned()
        };
        let leaves: BTreeSet<String> = new.modules.iter().map(last).collect();
        new.target_modules = Some(leaves.into_iter().collect());
    }
    Ok(())
}

/// Zeros for those projections of a layer that have none, where others have.
fn siblings(served: &Served<'_>, modules: &[NewModule], names: &[&str]) -> Result<Vec<NewModule>> {
    let mut layers: BTreeMap<&str, BTreeMap<&str, &NewModule>> = BTreeMap::new();
    for module in modules {
        if let Some((above, last)) = module.name.rsplit_once('.')
            && names.contains(&last)
            && expert_of(&module.name).is_none()
        {
            layers.entry(above).or_default().insert(last, module);
        }
    }
    let mut added = Vec::new();
    for (above, present) in layers {
        let Some(model) = present.values().next() else { continue };
        for name in names.iter().filter(|name| !present.contains_key(**name)) {
            let Some(base) = &served.reference else {
                let reason = format!(
                    "how large {above}.{name} is, which the program does not do without (--reference BASE)"
                );
                return Err(ConvertError::Reference { reason }.into());
            };
            let tensor = format!("{above}.{name}.weight");
            let shape = base.tensor(&tensor).map(|view| view.spec.shape.as_slice());
            // A model without the projection needs none.
            let Some([outputs, inputs]) = shape else { continue };
            added.push(zeros(format!("{above}.{name}"), model, (*outputs, *inputs)));
        }
    }
    Ok(added)
}

/// Zeros for those matrices of a layer's experts that have none, where others have.
fn missing_experts(served: &Served<'_>, modules: &[NewModule]) -> Vec<NewModule> {
    let mut layers: BTreeMap<&str, BTreeMap<(usize, &str), &NewModule>> = BTreeMap::new();
    for module in modules {
        if let Some((holder, number, matrix)) = expert_of(&module.name) {
            layers.entry(holder).or_default().insert((number, matrix), module);
        }
    }
    let mut added = Vec::new();
    for (holder, present) in layers {
        let last = present.keys().map(|(number, _)| number + 1).max().unwrap_or(0);
        let count = served.experts.unwrap_or(last).max(last);
        let used = |names: &&[&str; 3]| present.keys().any(|(_, matrix)| names.contains(matrix));
        let Some(names) = MATRICES.iter().find(used) else { continue };
        // gate and up are inner × hidden, down is hidden × inner.
        let sizes = present.iter().find_map(|((_, matrix), module)| {
            let place = names.iter().position(|name| name == matrix)?;
            let (outputs, inputs) = size(module)?;
            Some((if place == 2 { (inputs, outputs) } else { (outputs, inputs) }, *module))
        });
        let Some(((inner, hidden), model)) = sizes else { continue };
        for number in 0..count {
            for (place, name) in names.iter().enumerate() {
                if !present.contains_key(&(number, *name)) {
                    let shape = if place == 2 { (hidden, inner) } else { (inner, hidden) };
                    added.push(zeros(format!("{holder}.{number}.{name}"), model, shape));
                }
            }
        }
    }
    added
}

/// Zeros for those experts that have none in the stacks of a convention, which has one tensor for all of them.
fn missing_in_stacks(served: &Served<'_>, modules: &[NewModule]) -> Vec<NewModule> {
    let mut stacks: BTreeMap<String, BTreeMap<usize, &NewModule>> = BTreeMap::new();
    for module in modules {
        if let Some((stack, number)) = served.target.stack_of(&module.name) {
            stacks.entry(stack).or_default().insert(number, module);
        }
    }
    let mut added = Vec::new();
    for present in stacks.values() {
        let Some((number, model)) = present.first_key_value() else { continue };
        let Some(shape) = size(model) else { continue };
        let Some((above, below)) = around(&model.name, *number) else { continue };
        let count = served.experts.unwrap_or(0);
        let missing = (0..count).filter(|number| !present.contains_key(number));
        added.extend(missing.map(|number| zeros(format!("{above}.{number}{below}"), model, shape)));
    }
    added
}

/// What stands before and behind the number of an expert, the last such part of a name.
fn around(name: &str, number: usize) -> Option<(&str, &str)> {
    let part = format!(".{number}");
    let at = name.rmatch_indices(&part).map(|(at, _)| at).find(|at| {
        let rest = name.get(at + part.len()..).unwrap_or_default();
        rest.is_empty() || rest.starts_with('.')
    })?;
    Some((name.get(..at)?, name.get(at + part.len()..)?))
}

/// Zeros for the one stack of a layer's experts where the other is there, and the stack that they make.
fn missing_stacks(new: &mut NewAdapter) -> Vec<NewModule> {
    let names: BTreeSet<&str> = new.modules.iter().map(|module| module.name.as_str()).collect();
    let (mut added, mut stacks) = (Vec::new(), Vec::new());
    for module in &new.modules {
        let Some((holder, number, matrix)) = expert_of(&module.name) else { continue };
        let Some((outputs, inputs)) = size(module) else { continue };
        // gate and up, one under the other, are 2·inner × hidden, down is hidden × inner.
        let (missing, shape) = match matrix {
            "gate_up_proj" => ("down_proj", (inputs, outputs / 2)),
            "down_proj" => ("gate_up_proj", (2 * inputs, outputs)),
            _ => continue,
        };
        let name = format!("{holder}.{number}.{missing}");
        let stack = new.stacks.get(&format!("{holder}.{matrix}"));
        if let Some(stack) = stack.filter(|_| !names.contains(name.as_str())) {
            added.push(zeros(name, module, shape));
            stacks.push((format!("{holder}.{missing}"), *stack));
        }
    }
    new.stacks.extend(stacks);
    added
}

/// Outputs and inputs of a module's factors.
fn size(module: &NewModule) -> Option<(usize, usize)> {
    let of = |part: Part, axis: usize| {
        let tensor = module.tensors.iter().find(|tensor| tensor.0 == part)?;
        tensor.2.get(axis).copied()
    };
    Some((of(Part::Up, 0)?, of(Part::Down, 1)?))
}
