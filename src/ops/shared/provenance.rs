//! Where a result comes from, as its header's metadata says it.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::adapter::Adapter;
use crate::error::Result;
use crate::format::{Metadata, hash};
use crate::ops::files_of;

/// The entry that says by which version, by what and from what it was made.
pub(crate) const MADE: &str = "lora_tool";

/// The entry with the text of the recipe it was made by.
pub(crate) const RECIPE: &str = "lora_tool.recipe";

/// The SHA-256 of files, by the names they are given; read on the current pool's threads.
///
/// # Errors
/// If one cannot be read.
pub(crate) fn hashes(files: &[(String, PathBuf)]) -> Result<Map<String, Value>> {
    let named =
        |(name, path): &(String, PathBuf)| Ok((name.clone(), Value::from(hash::of_file(path)?)));
    let hashes: Vec<_> = files.par_iter().map(named).collect::<Result<_>>()?;
    Ok(hashes.into_iter().collect())
}

/// The files of an adapter, its config among them, as [`hashes`] takes them.
pub(crate) fn files(adapter: &Adapter) -> Vec<(String, PathBuf)> {
    files_of(adapter).into_iter().map(|path| (name(&path), path)).collect()
}

/// An input: its name, weight, and files.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn input(path: &Path, weight: f64, files: &[(String, PathBuf)]) -> Result<Value> {
    Ok(json!({ "name": name(path), "weight": weight, "files": hashes(files)? }))
}

/// Says in a header what it was made by.
pub(crate) fn describe(metadata: &mut Metadata, made: &Value, recipe: Option<&str>) {
    metadata.insert(MADE.to_owned(), made.to_string());
    match recipe {
        Some(recipe) => metadata.insert(RECIPE.to_owned(), recipe.to_owned()),
        // An input's own would not be true of the result.
        None => metadata.shift_remove(RECIPE),
    };
}

/// A base's metadata in what is made of it: the entries that say where the base comes from are not true
/// of the result, and stay as its history, a `lora_tool…` as `lora_tool.base…`.
pub(crate) fn of_base(metadata: &Metadata) -> Metadata {
    let renamed = |(key, value): (&String, &String)| {
        let rest = key.strip_prefix(MADE).filter(|rest| rest.is_empty() || rest.starts_with('.'));
        let key = rest.map_or(key.clone(), |rest| format!("{MADE}.base{rest}"));
        (key, value.clone())
    };
    metadata.iter().map(renamed).collect()
}

/// What a path is called in metadata, which tells nothing of its folders.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
