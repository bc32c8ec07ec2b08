//! An input in a store as a local directory or file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path as LocalPath, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::ahead::Ahead;
use super::bucket::{Bucket, wait};
use super::object::Object;
use crate::error::CloudError;
use crate::format::remote;

/// Files whose bytes are read in ranges.
const WEIGHTS: [&str; 2] = ["safetensors", "gguf"];
/// Files that no verb reads or copies.
const LEFT: [&str; 9] = ["bin", "pt", "pth", "ckpt", "msgpack", "h5", "onnx", "ot", "tflite"];
/// Objects below a location, at most.
const MOST: usize = 100_000;
/// What is looked for on a server that cannot list.
const USUAL: [&str; 15] = [
    "config.json",
    "model.safetensors.index.json",
    "model.safetensors",
    "adapter_config.json",
    "adapter_model.safetensors",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "preprocessor_config.json",
];

/// The local path that stands for an input in a store.
///
/// # Errors
/// [`CloudError`].
pub(in crate::format) fn mirror(location: &str) -> Result<PathBuf, CloudError> {
    let bucket = Bucket::open(location)?;
    let objects = objects(&bucket)?;
    if objects.is_empty() {
        return Err(CloudError::NotFound { location: location.to_owned() });
    }
    let local = |path: &LocalPath, error: &io::Error| bucket.local(path, error);
    let root = remote::mirror(location, &bucket.name())
        .map_err(|error| local(LocalPath::new("TMPDIR"), &error))?;
    for meta in objects {
        let below = below(&bucket, &meta)?;
        let path = if below.as_os_str().is_empty() { root.clone() } else { root.join(below) };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| local(folder, &error))?;
        }
        place(&bucket, meta, &path)?;
    }
    Ok(root)
}

/// The object itself, or all below it.
fn objects(bucket: &Bucket) -> Result<Vec<ObjectMeta>, CloudError> {
    let asked = wait(async {
        match bucket.store.head(&bucket.path).await {
            Ok(meta) if !bucket.location.ends_with('/') => return Ok(vec![meta]),
            Err(error)
                if !matches!(error, object_store::Error::NotFound { .. }) && !bucket.lists =>
            {
                return Err(error);
            }
            _ => {}
        }
        match bucket.lists {
            true => bucket.store.list(Some(&bucket.path)).take(MOST).try_collect().await,
            false => usual(bucket).await,
        }
    });
    let asked = asked.map_err(|error| bucket.local(LocalPath::new("threads"), &error))?;
    asked.map_err(|error| bucket.error(&error))
}

/// The files that a model or an adapter has on a server that cannot list, and the shards that an index names.
async fn usual(bucket: &Bucket) -> object_store::Result<Vec<ObjectMeta>> {
    let mut names: Vec<String> = USUAL.iter().map(|name| (*name).to_owned()).collect();
    let index = bucket.path.clone().join("model.safetensors.index.json");
    if let Ok(found) = bucket.store.get(&index).await {
        let text = found.bytes().await?;
        names.extend(shards(&text));
    }
    let mut found = Vec::new();
    for name in names {
        match bucket.store.head(&bucket.path.clone().join(name)).await {
            Ok(meta) => found.push(meta),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The files that an index names; of one that cannot be read, none: whoever opens it says what is wrong.
fn shards(index: &[u8]) -> Vec<String> {
    let Ok(index) = crate::format::json::object(index) else { return Vec::new() };
    let files = index.get("weight_map").and_then(serde_json::Value::as_object);
    let mut files: Vec<String> = files
        .map(|map| map.values().filter_map(|file| file.as_str().map(str::to_owned)).collect())
        .unwrap_or_default();
    files.sort();
    files.dedup();
    files
}

/// An object's path below the location.
fn below(bucket: &Bucket, meta: &ObjectMeta) -> Result<PathBuf, CloudError> {
    let bad = || CloudError::BadName {
        location: bucket.location.clone(),
        name: meta.location.to_string(),
    };
    let parts = meta.location.prefix_match(&bucket.path).ok_or_else(bad)?;
    let path: PathBuf = parts.map(|part| part.as_ref().to_owned()).collect();
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    is_below.then_some(path).ok_or_else(bad)
}

/// Puts a file where it stands for an object: with its bytes, or for weights with its length alone.
fn place(bucket: &Bucket, meta: ObjectMeta, path: &LocalPath) -> Result<(), CloudError> {
    let ending = path
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default()
        .to_ascii_lowercase();
    if LEFT.contains(&ending.as_str()) {
        return Ok(());
    }
    let local = |error: &io::Error| bucket.local(path, error);
    let mut file = File::create_new(path).map_err(|error| local(&error))?;
    if WEIGHTS.contains(&ending.as_str()) {
        file.set_len(meta.size).map_err(|error| local(&error))?;
        let size = meta.size;
        let object = Object { store: Arc::clone(&bucket.store), path: meta.location.clone(), meta };
        remote::stands_for(path.to_path_buf(), Arc::new(Ahead::new(object, size)));
        return Ok(());
    }
    let copied = wait(copy(bucket, &meta.location, &mut file)).map_err(|error| local(&error))?;
    match copied {
        Ok(()) => Ok(()),
        Err(Copy::Store(error)) => Err(bucket.error(&error)),
        Err(Copy::Local(error)) => Err(local(&error)),
    }
}

/// What ended a copy.
enum Copy {
    Store(object_store::Error),
    Local(io::Error),
}

async fn copy(bucket: &Bucket, from: &Path, file: &mut File) -> Result<(), Copy> {
    let found = bucket.store.get(from).await.map_err(Copy::Store)?;
    let mut stream = found.into_stream();
    while let Some(chunk) = stream.next().await {
        file.write_all(&chunk.map_err(Copy::Store)?).map_err(Copy::Local)?;
    }
    Ok(())
}
