//! The small files beside the weights: configs, tokenizers, the index. Copied as they are, except
//! where the result would contradict them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::bind::Bound;
use super::layout::OutputShard;
use super::{Options, tied};
use crate::error::{Locate, Result};
use crate::format::index::{INDEX_SUFFIX, Index};
use crate::format::{Checkpoint, Component, Dtype};

/// Larger files beside a checkpoint are weights of some kind, whatever their name.
const LARGEST: u64 = 64 << 20;

/// Endings of weights in other formats, which a merge would make stale.
const WEIGHTS: [&str; 18] = [
    "safetensors",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "gguf",
    "ggml",
    "onnx",
    "onnx_data",
    "h5",
    "msgpack",
    "tflite",
    "npz",
    "ot",
    "mlmodel",
    "pb",
    "pkl",
    "index.json",
];

/// A file of the output that is no weight file.
#[derive(Debug, Clone, Serialize)]
pub struct SideFile {
    /// Its path below the output.
    pub relative: String,
    /// The base's file it is a copy of; none for a made one.
    pub source: Option<PathBuf>,
    /// What it will hold, where it is not a plain copy.
    #[serde(skip)]
    pub content: Option<Vec<u8>>,
}

/// Lists all side files of the output.
pub(super) fn collect(
    options: &Options,
    base: &Checkpoint,
    bound: &Bound,
    shards: &[OutputShard],
    one_file: bool,
) -> Result<Vec<SideFile>> {
    if one_file {
        return Ok(Vec::new());
    }
    let mut files = BTreeMap::new();
    if let Some(directory) = base.directory() {
        walk(directory, "", &mut files)?;
    }
    for (number, component) in base.components.iter().enumerate() {
        let own: Vec<_> = shards.iter().filter(|shard| shard.component == number).collect();
        add_index(component, &own, &mut files);
        let path = format!("{}config.json", component.prefix);
        let edited = tied::config(component)
            .filter(|_| files.contains_key(&path))
            .and_then(|config| edit_config(config, options, bound));
        if let Some(content) = edited {
            let source = Some(component.directory.join("config.json"));
            files.insert(path.clone(), SideFile { relative: path, source, content: Some(content) });
        }
    }
    Ok(files.into_values().collect())
}

/// What lies beside a checkpoint's weights: the files that a merge to a directory copies or edits.
pub(in crate::ops) fn beside(base: &Checkpoint) -> Result<Vec<SideFile>> {
    let mut files = BTreeMap::new();
    if let Some(directory) = base.directory() {
        walk(directory, "", &mut files)?;
    }
    Ok(files.into_values().collect())
}

fn walk(directory: &Path, prefix: &str, files: &mut BTreeMap<String, SideFile>) -> Result<()> {
    for entry in std::fs::read_dir(directory).in_file(directory)? {
        let entry = entry.in_file(directory)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if name.starts_with('.') {
            continue;
        }
        let relative = format!("{prefix}{name}");
        if metadata.is_dir() {
            // One level is where pipelines and sentence encoders keep their parts.
            if prefix.is_empty() {
                walk(&path, &format!("{name}/"), files)?;
            }
        } else if metadata.is_file() && metadata.len() <= LARGEST && !is_weights(&name) {
            let file = SideFile { relative: relative.clone(), source: Some(path), content: None };
            files.insert(relative, file);
        }
    }
    Ok(())
}

fn is_weights(name: &str) -> bool {
    let lower = name.to_lowercase();
    WEIGHTS.iter().any(|ending| lower.ends_with(&format!(".{ending}")))
}

/// The other files where the same tensors lie in other weight files than planned.
pub(in crate::ops) fn relaid(
    planned: &[SideFile],
    base: &Checkpoint,
    shards: &[OutputShard],
) -> Vec<SideFile> {
    let others = planned.iter().filter(|file| !file.relative.ends_with(INDEX_SUFFIX));
    let mut files: BTreeMap<_, _> =
        others.map(|file| (file.relative.clone(), file.clone())).collect();
    for (number, component) in base.components.iter().enumerate() {
        let own: Vec<_> = shards.iter().filter(|shard| shard.component == number).collect();
        add_index(component, &own, &mut files);
    }
    files.into_values().collect()
}

/// The component's index: the base's own if every tensor stays where it is, else one made anew.
fn add_index(
    component: &Component,
    shards: &[&OutputShard],
    files: &mut BTreeMap<String, SideFile>,
) {
    if component.index.is_none() && shards.len() < 2 {
        return;
    }
    let file_name = match &component.index {
        Some(index) => index.file_name.clone(),
        None => {
            let stem = shards.first().and_then(|shard| {
                let name = shard.relative.strip_prefix(&component.prefix)?;
                name.rsplit_once("-of-")?.0.rsplit_once('-').map(|(stem, _)| stem.to_owned())
            });
            format!("{}{INDEX_SUFFIX}", stem.unwrap_or_else(|| "model".to_owned()))
        }
    };
    if shards.len() < 2 && shards.iter().all(|shard| !shard.relative.contains("-of-")) {
        return;
    }
    let relative = format!("{}{file_name}", component.prefix);
    let moved = shards.iter().any(|shard| shard.same_header_as.is_none());
    let file = match (&component.index, moved) {
        (Some(_), false) => SideFile {
            relative: relative.clone(),
            source: Some(component.directory.join(&file_name)),
            content: None,
        },
        _ => {
            let mut map = BTreeMap::new();
            let (mut bytes, mut parameters) = (0, 0);
            for shard in shards {
                let name =
                    shard.relative.strip_prefix(&component.prefix).unwrap_or(&shard.relative);
                for tensor in &shard.tensors {
                    map.insert(tensor.name.clone(), name.to_owned());
                    parameters += tensor.shape.iter().product::<usize>() as u64;
                }
                bytes += shard.bytes();
            }
            let content = Index::rewrite(component.index.as_ref(), &map, bytes, parameters);
            SideFile { relative: relative.clone(), source: None, content: Some(content) }
        }
    };
    files.insert(relative, file);
}

/// The config with what the merge made untrue put right; `None` if nothing was.
fn edit_config(config: Value, options: &Options, bound: &Bound) -> Option<Vec<u8>> {
    let Value::Object(mut config) = config else { return None };
    let before = config.clone();
    if bound.untied.is_some() {
        config.insert("tie_word_embeddings".to_owned(), false.into());
        set_nested(&mut config, "text_config", "tie_word_embeddings", &false.into());
    }
    if let Some(vocabulary) = bound.grown.values().max() {
        let size = Value::from(*vocabulary);
        match config.contains_key("vocab_size") {
            true => config.insert("vocab_size".to_owned(), size.clone()),
            false => None,
        };
        set_nested(&mut config, "text_config", "vocab_size", &size);
    }
    if let Some(name) = options.dtype.and_then(dtype_name) {
        for key in ["torch_dtype", "dtype"] {
            if config.contains_key(key) {
                config.insert(key.to_owned(), name.into());
            }
            set_nested(&mut config, "text_config", key, &name.into());
        }
    }
    if config == before {
        return None;
    }
    let mut text = serde_json::to_vec_pretty(&Value::Object(config)).ok()?;
    text.push(b'\n');
    Some(text)
}

/// Sets a key of a nested object that has it already.
fn set_nested(config: &mut Map<String, Value>, object: &str, key: &str, value: &Value) {
    if let Some(Value::Object(nested)) = config.get_mut(object)
        && nested.contains_key(key)
    {
        nested.insert(key.to_owned(), value.clone());
    }
}

/// The name transformers gives a dtype.
fn dtype_name(dtype: Dtype) -> Option<&'static str> {
    match dtype {
        Dtype::F32 => Some("float32"),
        Dtype::F16 => Some("float16"),
        Dtype::BF16 => Some("bfloat16"),
        _ => None,
    }
}
