//! From the sum of updates to what a method combines: one share an input, its weight apart.

use super::binder::Bound;
use super::inputs::{Input, Inputs};
use super::method_choice::MethodChoice;
use super::step::{Change, Difference, InputDelta, InputShare, MethodStep, Step, Term};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Checkpoint;
use crate::ops::merge::{AdapterInput, Options};
use crate::ops::shared::param_rules::{self, Site};
use crate::ops::shared::rules::Layers;

/// Turns the steps of every change that adds anything into one of the method.
///
/// Values that replace the base's are put in place as ever: they are no delta.
///
/// # Errors
/// Updates that depend on the weight they find, or have no factors where the method looks at them; a tensor that one
/// input replaces and another updates.
pub(in crate::ops::merge) fn bind(
    options: &Options,
    (method, inputs): (&MethodChoice, &Inputs),
    bound: &mut Bound,
) -> Result<()> {
    for (name, change) in &mut bound.changes {
        if let Some(term) = change.transforms().next() {
            let adapter = inputs.adapters.get(term.adapter);
            let module = adapter.and_then(|adapter| adapter.modules.get(term.module));
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
        if change.steps().iter().any(|step| step.replacing().is_some()) {
            let reason =
                "one input replaces it and another updates it, which no method combines; leave it \
                          to one of them with --exclude"
                    .to_owned();
            return Err(ErrorKind::BadOption(reason)).in_tensor(name);
        }
        if method.of_factors() {
            check_factors(method, inputs, change.steps()).in_tensor(name)?;
        }
        let shares = shares(inputs, change.take_steps());
        let own = |input: &AdapterInput| input.weight * input.rules.weight([name, name]);
        let weights = options.adapters.iter().map(own).collect();
        let step = MethodStep { name: name.clone(), weights, shares, settings: None };
        change.add(Step::Method(Box::new(step)));
    }
    Ok(())
}

/// Fails if an update has no factors, which the method looks at.
fn check_factors(method: &MethodChoice, inputs: &Inputs, steps: &[Step]) -> Result<()> {
    for step in steps {
        let what = match step {
            Step::Difference(_) => "a fine-tuned checkpoint".to_owned(),
            Step::Rowwise(term) => {
                let adapter = inputs.adapters.get(term.adapter);
                let module = adapter.and_then(|adapter| adapter.modules.get(term.module));
                format!("a {} update", module.map_or("whole", |module| module.family))
            }
            _ => continue,
        };
        let reason = format!(
            "{what} has no factors of a small rank, which `{}` looks at; take a method that looks at elements (ties, dare-ties), or \
             make a LoRA of it first, with extract or convert --as lora",
            method.method.name
        );
        return Err(ErrorKind::BadOption(reason).into());
    }
    Ok(())
}

/// Gives every step of the method the parameters that the options' rules say for it.
///
/// # Errors
/// Rules that decide nothing, and parameters that the method does not take together.
pub(in crate::ops::merge) fn settle(
    options: &Options,
    (method, inputs): (&MethodChoice, &Inputs),
    base: &Checkpoint,
    bound: &mut Bound,
) -> Result<()> {
    if options.param_rules.is_empty() {
        return Ok(());
    }
    let changes = bound.changes.values_mut();
    let mut steps: Vec<&mut MethodStep> = changes.filter_map(Change::method_mut).collect();
    let sites: Vec<Site> = steps.iter().map(|step| site(step, inputs)).collect();
    let layers = Layers::of(base.names());
    let (rules, general) = (&options.param_rules, &method.settings);
    let settled = param_rules::settle(rules, &layers, general, &options.adapters, &sites)?;
    for (step, settings) in steps.iter_mut().zip(settled) {
        if let Some(settings) = &settings {
            method.check(settings, options.adapters.len()).in_tensor(&step.name)?;
        }
        step.settings = settings;
    }
    Ok(())
}

/// The names that a step goes by: its tensor's, and its modules' in their own adapters.
fn site(step: &MethodStep, inputs: &Inputs) -> Site {
    let module = |term: &Term| {
        let adapter = inputs.adapters.get(term.adapter)?;
        Some(adapter.modules.get(term.module)?.name.clone())
    };
    let modules = step.shares.iter().flat_map(|share| {
        let names: Vec<String> = match &share.delta {
            InputDelta::Updates(terms) => terms.iter().filter_map(module).collect(),
            InputDelta::Difference(difference) => vec![difference.tensor.clone()],
        };
        names.into_iter().map(|name| (share.input, name))
    });
    Site { name: step.name.clone(), modules: modules.collect() }
}

/// Takes the steps of a change, all of them updates, apart by input.
fn shares(inputs: &Inputs, steps: Vec<Step>) -> Vec<InputShare> {
    let (mut updates, mut differences) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Factors(term) | Step::Rowwise(term) => updates.push(term),
            Step::Difference(difference) => differences.push(difference),
            // `bind` has refused the others.
            Step::Replace(_) | Step::Method(_) | Step::Transform(_) | Step::Rows(_) => {}
        }
    }
    let share = |(number, input): (usize, &Input)| {
        let (weight, delta) = match *input {
            Input::Tuned(tuned) => {
                let step = differences.iter().find(|step| step.tuned == tuned)?;
                let unweighted = Difference { weight: 1.0, ..step.clone() };
                (step.weight, InputDelta::Difference(unweighted))
            }
            Input::Adapter(adapter) => {
                let of_adapter = updates.iter().filter(|term| term.adapter == adapter);
                // Modules of one input on one tensor may have weights of their own: the first one's is the
                // input's, and the others keep what theirs is to it.
                let weight = of_adapter.clone().next()?.weight;
                let relative = |term: &Term| Term { weight: term.weight / weight, ..term.clone() };
                (weight, InputDelta::Updates(of_adapter.map(relative).collect()))
            }
        };
        Some(InputShare { input: number, weight, delta })
    };
    inputs.order.iter().enumerate().filter_map(share).collect()
}
