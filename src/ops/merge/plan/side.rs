//! The files beside the weights: configs, tokenizers, the index, and sub-models that the merge does not
//! touch. Copied as they are, except where the result would contradict them; what is not carried is
//! listed with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::binder::Bound;
use super::layout::OutputShard;
use super::quantised::Dtypes;
use super::recoding::Recoding;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::access::read_config_if_there;
use crate::format::checkpoint::Layout;
use crate::format::index::{INDEX_SUFFIX, Index};
use crate::format::json::{self, MODEL_CONFIG, model_config};
use crate::format::{Checkpoint, Component, Dtype};
use crate::ops::shared::side_file::SideFile;
use crate::weight::element::torch_name;
use crate::weight::{self, EightBit, SIDE_FILES};

/// Larger files beside a checkpoint are weights of some kind, whatever their name.
const LARGEST: u64 = 64 << 20;
/// Directories below a checkpoint's own that are looked into, one in another.
const DEEPEST: usize = 8;
/// Files that lie beside one checkpoint.
const MOST: usize = 10_000;

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

/// Files of an adapter: beside merged weights a loader would take them for something still to be added.
const ADAPTER_FILES: [&str; 5] = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "adapters.safetensors",
    "adapter_model.pt",
];

/// A file of the base that the output will not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NotCarried {
    /// Its path below the base; bytes that are no UTF-8 are replaced.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// All that lies beside the merged weights.
#[derive(Debug, Default)]
pub(in crate::ops::merge) struct Sides {
    /// Files of the output.
    pub(in crate::ops::merge) carried: Vec<SideFile>,
    /// Files of the base that the output will not have.
    pub(in crate::ops::merge) not_carried: Vec<NotCarried>,
    /// What a user should know of them.
    pub(in crate::ops::merge) warnings: Vec<String>,
}

/// Lists all side files of the output, and those of the base that it will not have.
///
/// # Errors
/// If a directory or a config cannot be read, or there are more files than a checkpoint has.
pub(in crate::ops::merge) fn collect(
    (base, dtypes, recoding): (&Checkpoint, &Dtypes, Option<&Recoding>),
    bound: &Bound,
    shards: &[OutputShard],
    one_file: bool,
) -> Result<Sides> {
    if one_file {
        return Ok(Sides::default());
    }
    let (mut files, mut not_carried, mut warnings) = (BTreeMap::new(), Vec::new(), Vec::new());
    if let Some(directory) = base.directory() {
        let mut walk = Walk::new(base, directory)?;
        walk.directory(directory, "", 0)?;
        (files, not_carried) = (walk.carried, walk.not_carried);
    }
    for (number, component) in base.components.iter().enumerate() {
        let own: Vec<_> = shards.iter().filter(|shard| shard.component == number).collect();
        add_index(component, &own, &mut files);
        let modules = recoding.map(|recoding| recoding.plain_modules(component));
        let modules = modules.unwrap_or_default();
        let dequantised = base.is_computed() && !dtypes.is_kept();
        for name in SIDE_FILES.iter().filter(|_| dequantised) {
            let file = format!("{}{name}", component.prefix);
            if files.remove(&file).is_some() {
                let reason = "it describes quantised weights, which the result does not have";
                not_carried.push(NotCarried { file, reason: reason.to_owned() });
            }
        }
        for name in SIDE_FILES.iter().filter(|_| !modules.is_empty()) {
            skip_in(name, component, &modules, &mut files)?;
        }
        let path = format!("{}{MODEL_CONFIG}", component.prefix);
        if !files.contains_key(&path) {
            continue;
        }
        let config = model_config(&component.directory)?;
        let unread = config.as_ref().and_then(weight::Config::unread_skips);
        warnings.extend(unread.filter(|_| !modules.is_empty()).map(str::to_owned));
        let dtype = dtypes.of_config(number);
        let retyped = recoding.and_then(|recoding| recoding.retyped(component));
        let described = (dtype, dequantised, &modules[..], retyped);
        let edited = config.and_then(|config| edit_config(config, described, bound));
        if let Some(content) = edited {
            let source = Some(component.directory.join(MODEL_CONFIG));
            files.insert(path.clone(), SideFile { relative: path, source, content: Some(content) });
        }
    }
    not_carried.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(Sides { carried: files.into_values().collect(), not_carried, warnings })
}

/// What lies beside a checkpoint's weights: the files that a merge to a directory copies or edits.
pub(in crate::ops) fn beside(base: &Checkpoint) -> Result<Vec<SideFile>> {
    let Some(directory) = base.directory() else { return Ok(Vec::new()) };
    let mut walk = Walk::new(base, directory)?;
    walk.directory(directory, "", 0)?;
    Ok(walk.carried.into_values().collect())
}

/// A look at everything below a checkpoint's directory.
struct Walk {
    /// Weight files and indexes of the models that are merged.
    own: BTreeSet<String>,
    /// Directories of models that the checkpoint says are its parts.
    parts: BTreeSet<String>,
    seen: BTreeSet<PathBuf>,
    files: usize,
    carried: BTreeMap<String, SideFile>,
    not_carried: Vec<NotCarried>,
}

impl Walk {
    fn new(base: &Checkpoint, directory: &Path) -> Result<Self> {
        let shards = base.shards.iter().map(|shard| shard.relative.clone());
        let indexes = base.components.iter().filter_map(|component| {
            Some(format!("{}{}", component.prefix, component.index.as_ref()?.file_name))
        });
        Ok(Self {
            own: shards.chain(indexes).collect(),
            parts: parts(base, directory)?,
            seen: BTreeSet::new(),
            files: 0,
            carried: BTreeMap::new(),
            not_carried: Vec::new(),
        })
    }

    fn directory(&mut self, directory: &Path, prefix: &str, depth: usize) -> Result<()> {
        let real = directory.canonicalize().in_file(directory)?;
        if depth > DEEPEST || !self.seen.insert(real) {
            let reason = match depth > DEEPEST {
                true => format!("it lies more than {DEEPEST} directories deep"),
                false => "a link to a directory that is carried already".to_owned(),
            };
            self.leave(prefix.to_owned(), reason);
            return Ok(());
        }
        for entry in std::fs::read_dir(directory).in_file(directory)? {
            let entry = entry.in_file(directory)?;
            self.files += 1;
            if self.files > MOST {
                let reason =
                    format!("more than {MOST} files lie below it; no checkpoint has as many");
                return Err(ErrorKind::NoCheckpoint { reason }).in_file(directory);
            }
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                let name = entry.file_name().to_string_lossy().into_owned();
                self.leave(format!("{prefix}{name}"), "its name is not UTF-8");
                continue;
            };
            let relative = format!("{prefix}{name}");
            if name.starts_with('.') {
                self.leave(relative, "hidden");
                continue;
            }
            match std::fs::metadata(&path) {
                Ok(found) if found.is_dir() => {
                    self.directory(&path, &format!("{relative}/"), depth + 1)?;
                }
                Ok(found) if found.is_file() => self.file(relative, &name, path, found.len()),
                Ok(_) => self.leave(relative, "no regular file"),
                Err(error) => self.leave(relative, format!("it cannot be read: {error}")),
            }
        }
        Ok(())
    }

    fn file(&mut self, relative: String, name: &str, path: PathBuf, length: u64) {
        if self.own.contains(&relative) {
            return;
        }
        let above = relative.rsplit_once('/').map_or("", |(above, _)| above);
        let weights = is_weights(name);
        if ADAPTER_FILES.contains(&name) {
            self.leave(relative, "an adapter's, not the base's");
        } else if weights && name.ends_with(".safetensors") && self.parts.contains(above) {
            self.carry(relative, path);
        } else if weights {
            self.leave(relative, "weights that are not of the merged model");
        } else if length > LARGEST {
            self.leave(relative, format!("larger than {} MiB", LARGEST >> 20));
        } else {
            self.carry(relative, path);
        }
    }

    fn carry(&mut self, relative: String, path: PathBuf) {
        let file = SideFile { relative: relative.clone(), source: Some(path), content: None };
        self.carried.insert(relative, file);
    }

    fn leave(&mut self, file: String, reason: impl Into<String>) {
        self.not_carried.push(NotCarried { file, reason: reason.into() });
    }
}

/// Directories of sub-models, as sentence-transformers (`modules.json`: a list with a `path` each) and
/// diffusers (`model_index.json`: components as keys) say them, but for those that are merged.
fn parts(base: &Checkpoint, directory: &Path) -> Result<BTreeSet<String>> {
    let mut parts = BTreeSet::new();
    let read = |name: &str| -> Result<Option<Value>> {
        let path = directory.join(name);
        let Some(text) = read_config_if_there(&path).in_file(&path)? else { return Ok(None) };
        let bad = |error: serde_json::Error| ErrorKind::BadConfig { reason: error.to_string() };
        json::tree(&text).map(Some).map_err(bad).in_file(&path)
    };
    if let Some(Value::Array(modules)) = read("modules.json")? {
        let paths = modules.iter().filter_map(|module| module.get("path")?.as_str());
        parts.extend(paths.filter(|path| !path.is_empty()).map(str::to_owned));
    }
    if let Some(Value::Object(components)) = read("model_index.json")? {
        parts.extend(components.keys().cloned());
    }
    if base.layout == Layout::Pipeline {
        for component in &base.components {
            // Another file of weights there is a variant, which the merge makes stale.
            parts.remove(component.prefix.trim_end_matches('/'));
        }
    }
    Ok(parts)
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
    // Files of a GGUF set number themselves.
    let is_set = shards.iter().any(|shard| shard.gguf.is_some());
    if is_set || component.index.is_none() && shards.len() < 2 {
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

/// Puts modules that are no longer quantised into a file beside the config that describes the quantisation.
fn skip_in(
    name: &str,
    component: &Component,
    modules: &[String],
    files: &mut BTreeMap<String, SideFile>,
) -> Result<()> {
    let (path, relative) = (component.directory.join(name), format!("{}{name}", component.prefix));
    if !files.contains_key(&relative) {
        return Ok(());
    }
    let Some(text) = read_config_if_there(&path).in_file(&path)? else { return Ok(()) };
    let bad = |error: serde_json::Error| ErrorKind::BadConfig { reason: error.to_string() };
    let mut fields = json::object(&text).map_err(bad).in_file(&path)?;
    weight::Config::skip_beside(&mut fields, modules);
    let content = written(fields);
    files.insert(relative.clone(), SideFile { relative, source: Some(path), content });
    Ok(())
}

/// What a config has to say: the dtype of the result's weights where it may be another, whether they are no longer
/// quantised, which modules are not, and which are in 8 bits.
type Described<'a> = (Option<Dtype>, bool, &'a [String], Option<(EightBit, Vec<String>)>);

/// The config with what the merge made untrue put right; `None` if nothing was.
fn edit_config(
    mut config: Map<String, Value>,
    (dtype, dequantised, modules, retyped): Described<'_>,
    bound: &Bound,
) -> Option<String> {
    let before = config.clone();
    if dequantised {
        weight::Config::remove_from(&mut config);
    }
    weight::Config::skip(&mut config, modules);
    if let Some((eight_bit, modules)) = retyped {
        eight_bit.describe(&mut config, &modules);
    }
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
    if let Some(name) = dtype.and_then(torch_name) {
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
    written(config)
}

/// A config's text.
fn written(config: Map<String, Value>) -> Option<String> {
    let mut text = serde_json::to_string_pretty(&Value::Object(config)).ok()?;
    text.push('\n');
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
