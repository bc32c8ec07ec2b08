//! From the sum of updates to what a method combines: one part an input, its weight apart.

use super::binder::Bound;
use super::change::{BlendPart, BlendStep, Change, Term};
use super::inputs::{Input, Inputs};
use super::method_choice::Rule;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Checkpoint;
use crate::ops::merge::{AdapterInput, Options};
use crate::ops::shared::param_rules::{self, Site};
use crate::ops::shared::rules::Layers;

/// Turns every change that adds anything into one of a blend.
///
/// Values that replace the base's are put in place as ever: they are no delta.
///
/// # Errors
/// Updates that depend on the weight they find; a tensor that one input replaces and another updates.
pub(in crate::ops::merge) fn bind(
    options: &Options,
    inputs: &Inputs,
    bound: &mut Bound,
) -> Result<()> {
    for (name, change) in &mut bound.changes {
        if let Some(step) = change.transforms.first() {
            let adapter = inputs.adapters.get(step.term.adapter);
            let module = adapter.and_then(|adapter| adapter.modules.get(step.term.module));
            let family = module.map_or("such", |module| module.family);
            let reason = format!(
                "{family} updates depend on the weight they find, so no method can combine them with others; \
                 merge this adapter afterwards, alone"
            );
            let path = adapter.map(|adapter| adapter.path.clone()).unwrap_or_default();
            return Err(ErrorKind::BadOption(reason)).in_tensor(name).in_file(&path);
        }
        if !change.updates() {
            continue;
        }
        if change.replace.is_some() || !change.row_steps.is_empty() {
            let reason =
                "one input replaces it and another updates it, which no method combines; leave it \
                          to one of them with --exclude"
                    .to_owned();
            return Err(ErrorKind::BadOption(reason)).in_tensor(name);
        }
        let parts = parts(options, inputs, name, change);
        let own = |input: &AdapterInput| input.weight * input.rules.weight([name, name]);
        let weights = options.adapters.iter().map(own).collect();
        change.blend =
            Some(Box::new(BlendStep { name: name.clone(), weights, parts, settings: None }));
    }
    Ok(())
}

/// Gives every blend the parameters that the options' rules say for it.
///
/// # Errors
/// Rules that decide nothing, and parameters that the method does not take together.
pub(in crate::ops::merge) fn settle(
    options: &Options,
    (rule, inputs): (&Rule, &Inputs),
    base: &Checkpoint,
    bound: &mut Bound,
) -> Result<()> {
    if options.param_rules.is_empty() {
        return Ok(());
    }
    let changes = bound.changes.values_mut();
    let mut steps: Vec<_> = changes.filter_map(|change| change.blend.as_deref_mut()).collect();
    let sites: Vec<Site> = steps.iter().map(|step| site(step, inputs)).collect();
    let layers = Layers::of(base.names());
    let (rules, general) = (&options.param_rules, &rule.settings);
    let settled = param_rules::settle(rules, &layers, general, &options.adapters, &sites)?;
    for (step, settings) in steps.iter_mut().zip(settled) {
        if let Some(settings) = &settings {
            rule.check(settings, options.adapters.len()).in_tensor(&step.name)?;
        }
        step.settings = settings;
    }
    Ok(())
}

/// The names that a blend goes by: its tensor's, and its modules' in their own adapters.
fn site(step: &BlendStep, inputs: &Inputs) -> Site {
    let modules = step.parts.iter().flat_map(|part| {
        let own = part.updates.iter().filter_map(|term| {
            let adapter = inputs.adapters.get(term.adapter)?;
            Some(adapter.modules.get(term.module)?.name.clone())
        });
        let tuned = part.differences.first().map(|step| step.tensor.clone());
        own.chain(tuned).map(|name| (part.input, name))
    });
    Site { name: step.name.clone(), modules: modules.collect() }
}

/// Takes the updates of a change apart, by input.
fn parts(options: &Options, inputs: &Inputs, name: &str, change: &mut Change) -> Vec<BlendPart> {
    let terms = std::mem::take(&mut change.terms);
    let updates: Vec<Term> =
        terms.into_iter().chain(std::mem::take(&mut change.additions)).collect();
    let differences = std::mem::take(&mut change.differences);
    let mut parts = Vec::new();
    for (number, (input, given)) in inputs.order.iter().zip(&options.adapters).enumerate() {
        let part = match *input {
            Input::Tuned(tuned) => {
                let mut own: Vec<_> =
                    differences.iter().filter(|step| step.tuned == tuned).cloned().collect();
                let weight = own.first().map_or(1.0, |step| step.weight);
                for step in &mut own {
                    step.weight = 1.0;
                }
                BlendPart { input: number, weight, updates: Vec::new(), differences: own }
            }
            Input::Adapter(adapter) => {
                let own = updates.iter().filter(|term| term.adapter == adapter);
                let module = |term: &Term| {
                    let modules = inputs.adapters.get(adapter).map(|adapter| &adapter.modules);
                    modules.and_then(|modules| modules.get(term.module))
                };
                let weight_of = |term: &Term| {
                    let module = module(term).map_or(name, |module| module.name.as_str());
                    options.weight(given, module, name)
                };
                // Modules of one input on one tensor may have weights of their own: the first one's
                // is the input's, and the others keep what theirs is to it.
                let weight = own.clone().next().map_or(1.0, weight_of);
                let unweighted =
                    own.map(|term| Term { coefficient: term.coefficient / weight, ..term.clone() });
                let updates = unweighted.collect();
                BlendPart { input: number, weight, updates, differences: Vec::new() }
            }
        };
        if !part.updates.is_empty() || !part.differences.is_empty() {
            parts.push(part);
        }
    }
    parts
}
