//! What a merge writes into its files' headers of where they come from.

use serde_json::{Map, Value};

use super::open_inputs::OpenInputs;
use super::output::Plan;
use crate::error::Result;
use crate::format::{Checkpoint, Metadata};
use crate::ops::shared::provenance;

/// The entries for every header, those that the plan has already if it has. The base's bytes are hashed where a recipe
/// asked for the merge; else only the adapters' are, since the base would be read once more for it.
///
/// # Errors
/// If an input cannot be read.
pub(in crate::ops::merge) fn metadata(
    plan: &Plan,
    inputs: &OpenInputs,
) -> Result<Option<Metadata>> {
    if plan.origin.is_some() {
        return Ok(plan.origin.clone());
    }
    if plan.recipe.is_none() && plan.asked.is_none() {
        return Ok(None);
    }
    let mut adapters = inputs.adapters.iter().map(provenance::files);
    let mut tuned = inputs.tuned.iter().map(provenance::shards);
    let described = plan.adapters.iter().map(|input| {
        let own = if input.convention == "checkpoint" { tuned.next() } else { adapters.next() };
        provenance::input(input.weight, &own.unwrap_or_default())
    });
    let bases: Vec<&Checkpoint> = match &inputs.values {
        Some(values) => vec![values],
        None => inputs.bases().collect(),
    };
    let mut made = Map::new();
    let mut say = |key: &str, value: Value| made.insert(key.to_owned(), value);
    say("version", env!("CARGO_PKG_VERSION").into());
    say("method", plan.method.as_ref().map_or("linear", |choice| choice.method.name).into());
    let shards: Vec<_> = bases.into_iter().flat_map(provenance::shards).collect();
    let base = match plan.recipe {
        Some(_) => provenance::hashes(&shards)?,
        None => provenance::samples(&shards)?,
    };
    say("base", base.into());
    say("inputs", described.collect::<Result<Vec<Value>>>()?.into());
    if let Some(asked) = &plan.asked {
        say("options", asked.clone().into());
    }
    let mut metadata = Metadata::new();
    provenance::describe(&mut metadata, &made.into(), plan.recipe.as_deref());
    Ok(Some(metadata))
}
