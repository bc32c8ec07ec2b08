//! What a merge writes into its files' headers of where they come from, if a recipe asked for it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::error::Result;
use crate::format::{Checkpoint, Metadata};
use crate::ops::merge::Merge;
use crate::ops::shared::provenance;

/// The entries for every header; none without a recipe, since then all inputs would be read once more
/// for their hashes.
///
/// # Errors
/// If an input cannot be read.
pub(in crate::ops::merge) fn metadata(merge: &Merge) -> Result<Option<Metadata>> {
    let Some(recipe) = &merge.recipe else { return Ok(None) };
    let mut adapters = merge.adapters.iter().map(provenance::files);
    let mut tuned = merge.tuned.iter().map(shards_of);
    let inputs = merge.plan.adapters.iter().map(|input| {
        let own = if input.convention == "checkpoint" { tuned.next() } else { adapters.next() };
        provenance::input(&input.path, input.weight, &own.unwrap_or_default())
    });
    let made = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "method": merge.rule.as_ref().map_or("linear", |rule| rule.method.name),
        "base": provenance::hashes(&shards_of(&merge.base))?,
        "inputs": inputs.collect::<Result<Vec<Value>>>()?,
    });
    let mut metadata = Metadata::new();
    provenance::describe(&mut metadata, &made, Some(recipe));
    Ok(Some(metadata))
}

fn shards_of(checkpoint: &Checkpoint) -> Vec<(String, PathBuf)> {
    let shards = checkpoint.shards.iter();
    shards.map(|shard| (shard.relative.clone(), shard.path.clone())).collect()
}
