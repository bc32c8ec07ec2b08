//! Adapters of PEFT's types beside LoRA (LoHa, OFT, IA3, …) as PEFT's again: every tensor as it is, under
//! the name that PEFT itself gives it, and the config, which alone says how the tensors are meant.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::goal::{Conversion, Goal, ModuleReport};
use super::stored::header;
use crate::adapter::Adapter;
use crate::adapter::convention::{Convention, respelled};
use crate::adapter::layout::{Layout, MadeOf};
use crate::adapter::module::{BiasEffect, Dialect};
use crate::adapter::save::{Kept, NewAdapter};
use crate::adapter::sidecar::PeftConfig;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Tensor;

/// The whole adapter; none if it is no adapter of such a type that PEFT shall read again, or if its
/// modules have other names there.
pub(super) fn whole(
    adapter: &Adapter,
    goal: Goal<'_>,
    layout: &Layout,
) -> Result<Option<Conversion>> {
    let Some(config) = adapter.config.as_ref().filter(|config| config.peft_type != "LORA") else {
        return Ok(None);
    };
    let peft = |convention: &Convention| convention.holds.families == Some(Dialect::Peft);
    let both = peft(adapter.convention) && peft(goal.target);
    let modules = adapter.modules.iter().zip(&layout.modules);
    let as_it_is = modules.enumerate().all(|(at, (module, target))| {
        let named = target.as_ref().ok().filter(|target| target.source == MadeOf::Whole(at));
        named.is_some_and(|target| target.name == module.name)
    });
    let replaced = adapter.replacements.iter().zip(&layout.replacements);
    let named = replaced
        .into_iter()
        .all(|(replacement, name)| name.as_ref().ok() == Some(&replacement.module));
    let complete = layout.modules.len() == adapter.modules.len();
    if !both
        || goal.program.is_some_and(|takes| takes.factors_only || takes.lora_only)
        || !as_it_is
        || !named
        || !complete
    {
        return Ok(None);
    }
    let report = |(at, module): (usize, &crate::adapter::module::Module)| {
        let (from, to) = (vec![module.name.clone()], module.name.clone());
        let report = ModuleReport { from, to, factored: None, folded: 1.0, relative_error: 0.0 };
        (report, MadeOf::Whole(at))
    };
    let (reports, sources) = adapter.modules.iter().enumerate().map(report).unzip();
    let mut metadata = header(adapter);
    metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
    let new = NewAdapter {
        modules: Vec::new(),
        replacements: Vec::new(),
        metadata,
        config: None,
        stacks: std::collections::BTreeMap::new(),
        target_modules: None,
        kept: Some(Kept { tensors: tensors(adapter, config)?, config: targets(adapter, config) }),
    };
    Ok(Some(Conversion { new, reports, sources, lost: Vec::new() }))
}

/// All tensors that carry something.
fn tensors(adapter: &Adapter, config: &PeftConfig) -> Result<Vec<Tensor>> {
    let carrying =
        adapter.file.names().filter(|name| !adapter.inert.iter().any(|inert| inert == name));
    let read = carrying.map(|name| {
        let view = adapter.file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
        let spelled = respelled(name, config.peft_type);
        let spelled = spelled.ok_or(ErrorKind::NotFound).in_tensor(name)?;
        let mut scratch = Vec::new();
        let bytes = view.all(&mut scratch)?.to_vec();
        Ok((spelled, view.spec.dtype, view.spec.shape.clone(), bytes))
    });
    read.collect()
}

/// The config, its `target_modules` put right if what leaked into names stood in them.
fn targets(adapter: &Adapter, config: &PeftConfig) -> Map<String, Value> {
    let mut document = config.document.clone();
    let names: BTreeSet<&str> = adapter.modules.iter().map(|module| module.name.as_str()).collect();
    let means = document.get("target_modules");
    if names.is_empty() || names.iter().all(|name| hits(means, name)) {
        return document;
    }
    document.insert("target_modules".to_owned(), json!(names));
    for narrowing in ["exclude_modules", "layers_to_transform", "layers_pattern"] {
        if document.contains_key(narrowing) {
            document.insert(narrowing.to_owned(), Value::Null);
        }
    }
    if document.contains_key("feedforward_modules") {
        // IA3 scales the outputs, bias and all, of those that are none of these.
        let of_outputs = |effect| effect == BiasEffect::Multiply;
        let forward = adapter
            .modules
            .iter()
            .filter(|module| !module.bias.as_ref().is_some_and(|bias| of_outputs(bias.effect)));
        let forward: Vec<&str> = forward.map(|module| module.name.as_str()).collect();
        document.insert("feedforward_modules".to_owned(), json!(forward));
    }
    document
}

/// Whether PEFT finds a module by `target_modules`: a regular expression for the whole name, or ends of
/// names (peft `tuners/tuners_utils.py`, `check_target_module_exists`). Nothing is the model's default.
fn hits(targets: Option<&Value>, name: &str) -> bool {
    match targets {
        Some(Value::String(all)) if all == "all-linear" => true,
        Some(Value::String(pattern)) => {
            Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|regex| regex.is_match(name))
        }
        Some(Value::Array(ends)) => ends.iter().filter_map(Value::as_str).any(|end| {
            name.strip_suffix(end).is_some_and(|above| above.is_empty() || above.ends_with('.'))
        }),
        _ => true,
    }
}
