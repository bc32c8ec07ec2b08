//! Where a result comes from, as its header's metadata says it.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::adapter::Adapter;
use crate::error::{Locate, Result};
use crate::format::access::Source;
use crate::format::{Access, Checkpoint, Metadata, hash};
use crate::ops::files_of;

/// The entry that says by which version, by what and from what it was made.
pub(crate) const MADE: &str = "lora_tool";

/// The entry with the text of the recipe it was made by.
pub(crate) const RECIPE: &str = "lora_tool.recipe";

/// Bytes in the middle of a large file that tell it from others of its size.
const MIDDLE: u64 = 64 << 10;

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

/// An input of a merge: its weight, and its files by their hashes. Where it lies and what its folder is called is not
/// told: the same inputs give the same bytes out of a folder, the Hub's cache or a bucket.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn input(weight: f64, files: &[(String, PathBuf)]) -> Result<Value> {
    Ok(json!({ "weight": weight, "files": hashes(files)? }))
}

/// The files of a checkpoint, as [`hashes`] and [`samples`] take them.
pub(crate) fn shards(checkpoint: &Checkpoint) -> Vec<(String, PathBuf)> {
    let shards = checkpoint.shards.iter();
    shards.map(|shard| (shard.relative.clone(), shard.path.clone())).collect()
}

/// What tells large files from others without reading them whole, by the names they are given: the size, and the
/// SHA-256 of the bytes in the middle.
///
/// # Errors
/// If one cannot be read.
pub(crate) fn samples(files: &[(String, PathBuf)]) -> Result<Map<String, Value>> {
    let named = |(name, path): &(String, PathBuf)| Ok((name.clone(), sample(path)?));
    let samples: Vec<_> = files.par_iter().map(named).collect::<Result<_>>()?;
    Ok(samples.into_iter().collect())
}

fn sample(path: &Path) -> Result<Value> {
    let file = Source::open(path, Access::Read).in_file(path)?;
    let start = file.length().saturating_sub(MIDDLE) / 2;
    let end = file.length().min(start + MIDDLE);
    let mut scratch = Vec::new();
    let middle = hash::of_bytes(file.bytes(start..end, &mut scratch).in_file(path)?);
    Ok(json!({ "bytes": file.length(), "middle": middle }))
}

/// Whether a file is the one that a header knows by its hash, or by its sample.
pub(crate) fn is_file(path: &Path, known: &Value) -> bool {
    let Ok(found) = path.metadata() else { return false };
    match known.get("bytes") {
        None => found.is_file() && hash::of_file(path).is_ok_and(|hash| *known == hash),
        Some(bytes) => *bytes == found.len() && sample(path).is_ok_and(|sample| sample == *known),
    }
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

/// The entries of a header that say where its file comes from itself, and not its base.
pub(crate) fn entries(metadata: &Metadata) -> Metadata {
    let of_itself = |key: &str| key == MADE || key == RECIPE;
    let own = metadata.iter().filter(|(key, _)| of_itself(key));
    own.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Whether two entries say the same of method, weights and bytes of the inputs, whatever these are called and
/// whichever version wrote it.
pub(crate) fn agree(a: &str, b: &str) -> bool {
    let said = |text: &str| {
        let made: Value = serde_json::from_str(text).ok()?;
        let values = |files: &Value| {
            let files = files.as_object();
            let mut values: Vec<String> =
                files.into_iter().flatten().map(|(_, v)| v.to_string()).collect();
            values.sort();
            values
        };
        let inputs = made.get("inputs")?.as_array()?.iter();
        let inputs: Vec<_> =
            inputs.map(|input| (input.get("weight").cloned(), values(&input["files"]))).collect();
        Some((made.get("method").cloned(), values(&made["base"]), inputs))
    };
    said(a).is_some_and(|a| said(b) == Some(a))
}

/// What a path is called in metadata, which tells nothing of its folders: a repository by its name and revision.
pub(crate) fn name(path: &Path) -> String {
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let above = path.parent().filter(|above| above.ends_with("snapshots"));
    let repository = above.and_then(Path::parent).and_then(last);
    let repository =
        repository.and_then(|name| Some(name.strip_prefix("models--")?.replace("--", "/")));
    match (repository, last(path)) {
        (Some(repository), Some(revision)) => format!("{repository}@{revision}"),
        (_, Some(name)) => name,
        // `.` and `..` have names of their own.
        (_, None) => path.canonicalize().ok().as_deref().and_then(last).unwrap_or_default(),
    }
}
