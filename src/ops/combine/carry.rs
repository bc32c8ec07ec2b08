//! What a combination carries over beside the deltas, put around its modules: replaced tensors, configs,
//! metadata, and where it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::group::Group;
use super::open::Combine;
use crate::adapter::identity;
use crate::adapter::save::{NewAdapter, NewModule, bias_part};
use crate::error::Result;
use crate::format::Metadata;
use crate::math::{LowRank, Matrix};
use crate::ops::shared::provenance;

/// What a path is called: its last part, of a file without its ending.
fn name(path: &Path) -> String {
    let ends = path.extension().is_some_and(|end| end == "safetensors" || end == "gguf");
    let name = if ends { path.file_stem() } else { path.file_name() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Metadata of the result: that of a single input, or what holds of several, and what it was made of.
///
/// # Errors
/// If an input cannot be read for its hash.
pub(super) fn metadata(combine: &Combine) -> Result<Metadata> {
    let nothing = Metadata::new();
    let named = combine.adapters.iter().map(|adapter| {
        let header = adapter.file.shards.first().and_then(|shard| shard.header.metadata.as_ref());
        (header.unwrap_or(&nothing), name(&adapter.path))
    });
    let named: Vec<_> = named.collect();
    let (title, trigger) = (combine.options.title.as_deref(), combine.options.trigger.as_deref());
    let words = identity::Given { title, trigger };
    let mut metadata = match named.as_slice() {
        [(only, _)] => (*only).clone(),
        several => identity::combined(several, &name(&combine.options.output), words),
    };
    identity::call(&mut metadata, words);
    metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
    let inputs = combine.adapters.iter().zip(&combine.options.adapters);
    let inputs = inputs.map(|(adapter, input)| {
        let files = provenance::hashes(&provenance::files(adapter))?;
        Ok(json!({ "name": provenance::name(&input.path), "weight": input.weight, "files": files }))
    });
    let made = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "method": combine.method.name,
        "rank": combine.plan.rank,
        "inputs": inputs.collect::<Result<Vec<Value>>>()?,
    });
    provenance::describe(&mut metadata, &made, combine.options.recipe.as_deref());
    Ok(metadata)
}

/// Puts the computed modules and all that is carried over into one adapter.
///
/// # Errors
/// If an input cannot be read for its hash.
pub(super) fn assemble(combine: &Combine, modules: Vec<NewModule>) -> Result<NewAdapter> {
    let metadata = metadata(combine)?;
    Ok(NewAdapter { metadata, target_modules: target_modules(combine), ..around(combine, modules) })
}

/// Modules, with what the inputs say of all of them.
fn around(combine: &Combine, modules: Vec<NewModule>) -> NewAdapter {
    let configs: Vec<_> = combine.adapters.iter().filter_map(|a| a.config.as_ref()).collect();
    let mut config = configs.first().map(|config| config.as_lora());
    let stacked = combine.adapters.iter().filter(|adapter| !adapter.stacks.is_empty());
    let mut stacks = BTreeMap::new();
    for (number, adapter) in stacked.enumerate() {
        for (label, stack) in &adapter.stacks {
            stacks.entry(label.clone()).or_insert(*stack);
        }
        // By its release PEFT knows how the first one's stacks lie.
        let version =
            adapter.config.as_ref().and_then(|config| config.document.get("peft_version"));
        if let (0, Some(config)) = (number, &mut config) {
            config.insert("peft_version".to_owned(), version.cloned().unwrap_or(Value::Null));
        }
    }
    let replacements = combine.carried.replacements.clone();
    let metadata = Metadata::new();
    NewAdapter { modules, replacements, metadata, config, stacks, target_modules: None, kept: None }
}

/// The union of the inputs' `target_modules`, where suffixes name just the modules of the result;
/// else `None`, which lists full names.
fn target_modules(combine: &Combine) -> Option<Vec<String>> {
    let mut union = Vec::new();
    let mut excluded = Vec::new();
    for adapter in &combine.adapters {
        let config = adapter.config.as_ref()?;
        let field = |name: &str| config.document.get(name).filter(|value| !value.is_null());
        if field("layers_to_transform").is_some() {
            return None;
        }
        excluded.push(field("exclude_modules"));
        for target in field("target_modules")?.as_array()? {
            let target = target.as_str()?.to_owned();
            if !union.contains(&target) {
                union.push(target);
            }
        }
    }
    union.sort();
    let hit = |name: &str| union.iter().any(|t| name == t || name.ends_with(&format!(".{t}")));
    let all_hit = combine.groups.iter().all(|group| hit(&group.name));
    // A suffix would also hit a module that was left out, by its name or by a weight of 0.
    let written: BTreeSet<&str> = combine.groups.iter().map(|group| group.name.as_str()).collect();
    let mut modules = combine.adapters.iter().flat_map(|adapter| &adapter.modules);
    let all_written = modules.all(|module| written.contains(module.name.as_str()));
    // The first config's exclusions are written, so they must be everybody's.
    let same = excluded.iter().all(|other| excluded.first() == Some(other));
    (all_hit && all_written && same).then_some(union)
}

/// An adapter with the modules and replacements that the result will have, all of them zero.
pub(super) fn rehearsal(combine: &Combine) -> Result<NewAdapter> {
    let module = |group: &Group| {
        let factors = LowRank::new(Matrix::zeros(group.outputs, 1), Matrix::zeros(1, group.inputs));
        let bias = group.members.iter().any(|member| {
            let adapter = combine.adapters.get(member.adapter);
            let module = adapter.and_then(|adapter| adapter.modules.get(member.module));
            module.is_some_and(|module| module.added_bias().is_some())
        });
        let zeros = vec![0.0; group.outputs];
        let bias = bias.then(|| (bias_part(combine.convention), zeros.as_slice()));
        NewModule::new(&group.name, &group.kind, &factors, 1.0, bias, combine.dtype)
    };
    let modules = combine.groups.iter().map(module).collect::<Result<_>>()?;
    Ok(around(combine, modules))
}
