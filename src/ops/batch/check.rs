//! Items held to one another: each writes to a place of its own, and none reads what another writes, since nothing says
//! which of them comes first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::ready::Ready;
use crate::error::RecipeError;
use crate::ops::run::fields::{Read, together};
use crate::ops::shared::output::resolve_new;

/// Fails if items get into each other's way.
pub(super) fn check(items: &[Ready]) -> Result<(), RecipeError> {
    let mut outputs: BTreeMap<PathBuf, &Ready> = BTreeMap::new();
    for item in items {
        for output in item.asked.output().into_iter().chain(item.asked.beside()) {
            if let Some(other) = outputs.insert(resolve_new(output), item) {
                return clash(item, other, "both write to", output);
            }
        }
    }
    for (output, item) in &outputs {
        let mut above = output.ancestors().skip(1);
        if let Some(other) = above.find_map(|above| outputs.get(above)) {
            return clash(item, other, "one would write into the output of the other,", output);
        }
    }
    let mut inputs: BTreeMap<PathBuf, &Ready> = BTreeMap::new();
    for item in items {
        let (adapters, models) = item.asked.inputs();
        for input in adapters.into_iter().chain(models) {
            let real = resolve_new(input);
            if let Some(writer) = real.ancestors().find_map(|above| outputs.get(above)) {
                return clash(item, writer, "the first reads what the second writes,", input);
            }
            inputs.insert(real, item);
        }
    }
    for (output, item) in &outputs {
        let mut above = output.ancestors().skip(1);
        if let Some(reader) = above.find_map(|above| inputs.get(above)) {
            return clash(
                item,
                reader,
                "the first would write into an input of the second,",
                output,
            );
        }
    }
    Ok(())
}

fn clash(item: &Ready, other: &Ready, what: &str, path: &Path) -> Read<()> {
    let (first, second) = (item.item.name(), other.item.name());
    let line = other.item.keys.place.line;
    let advice = match what.starts_with("the first reads") {
        true => "items are made in no order: put the first into a batch that is run after this one",
        false => "put {name} into the output, or name another",
    };
    let reason =
        format!("`{first}` and `{second}` (line {line}): {what} {}; {advice}", path.display());
    Err(together(item.item.keys.place, reason))
}
