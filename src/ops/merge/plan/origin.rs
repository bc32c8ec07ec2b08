//! What a merge writes into its files' headers of where they come from, if a recipe asked for it.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::open_inputs::OpenInputs;
use super::output::Plan;
use crate::error::Result;
use crate::format::{Checkpoint, Metadata};
use crate::ops::shared::provenance;

/// The entries for every header, those that the plan has already if it has; none without a recipe, since then all inputs would be read once more
/// for their hashes.
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
    let Some(recipe) = &plan.recipe else { return Ok(None) };
    let mut adapters = inputs.adapters.iter().map(provenance::files);
    let mut tuned = inputs.tuned.iter().map(shards_of);
    let described = plan.adapters.iter().map(|input| {
        let own = if input.convention == "checkpoint" { tuned.next() } else { adapters.next() };
        provenance::input(&input.path, input.weight, &own.unwrap_or_default())
    });
    let made = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "method": plan.method.as_ref().map_or("linear", |choice| choice.method.name),
        "base": provenance::hashes(&inputs.bases().flat_map(shards_of).collect::<Vec<_>>())?,
        "inputs": described.collect::<Result<Vec<Value>>>()?,
    });
    let mut metadata = Metadata::new();
    provenance::describe(&mut metadata, &made, Some(recipe));
    Ok(Some(metadata))
}

fn shards_of(checkpoint: &Checkpoint) -> Vec<(String, PathBuf)> {
    let shards = checkpoint.shards.iter();
    shards.map(|shard| (shard.relative.clone(), shard.path.clone())).collect()
}
