//! Which files an adapter is, of whatever container, and which convention they are in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::convention::gguf_names::Architecture;
use super::convention::{self, Convention, Output, Part};
use super::mlx::{self, MlxConfig};
use super::save::Encoded;
use super::sidecar::{self, CONFIG_NAME, PeftConfig};
use super::{OpenOptions, gguf};
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::access::Source;
use crate::format::checkpoint::{is_pickle, not_found};
use crate::format::gguf::is_gguf;
use crate::format::{Checkpoint, Metadata, json};

/// The header entry with diffusers' scales (diffusers `loaders/lora_base.py`): PEFT's config fields,
/// each after its component and a dot.
pub const DIFFUSERS_ENTRY: &str = "lora_adapter_metadata";

/// An adapter of llama.cpp's that lies in a directory.
pub(super) const GGUF_NAME: &str = "adapter.gguf";

/// What was found at a path.
pub(super) struct Found {
    pub(super) file: Checkpoint,
    pub(super) convention: &'static Convention,
    /// The config file that was read, whoever's it is.
    pub(super) config_path: Option<PathBuf>,
    /// PEFT's.
    pub(super) config: Option<PeftConfig>,
    /// PEFT's, of each component of a pipeline.
    pub(super) components: Vec<(String, PeftConfig)>,
    /// mlx-lm's.
    pub(super) mlx: Option<MlxConfig>,
    /// llama.cpp's, and modules whose rows are in its order.
    pub(super) architecture: Option<(&'static Architecture, Vec<String>)>,
}

impl Found {
    fn new(file: Checkpoint, convention: &'static Convention) -> Self {
        Self {
            file,
            convention,
            config_path: None,
            config: None,
            components: Vec::new(),
            mlx: None,
            architecture: None,
        }
    }
}

/// Opens whatever adapter is at `path`.
pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Found> {
    let (tensors, config_path) = find(path)?;
    let lone = !path.is_dir();
    if lone || tensors.ends_with(GGUF_NAME) {
        let source = Source::open(&tensors, options.access).map_err(not_found).in_file(&tensors)?;
        if is_gguf(&source) {
            return open_gguf(&tensors, source, options);
        }
    }
    let file = Checkpoint::open(&tensors, options.access)?;
    let mlx = config_path.as_deref().map(mlx::open).transpose()?.flatten();
    // A stranger's config beside a lone file is no part of the adapter.
    let peft = match config_path.as_deref() {
        Some(path) if !lone || sidecar::is_peft_config(path)? => Some(path),
        _ => None,
    };
    let convention = recognise(&file, peft.is_some() && mlx.is_none(), options)?;
    let own = |name: &str| convention.name == name;
    let mut found = Found::new(file, convention);
    if own(convention::peft().name) {
        found.config_path = peft.map(Path::to_path_buf);
        let config =
            peft.map(|path| PeftConfig::open(path, &options.ignored_fields, options.residual_base));
        found.config = config.transpose()?;
    } else if own(convention::mlx().name) {
        found.file = mlx::turned(found.file)?;
        found.config_path = config_path.filter(|_| mlx.is_some());
        found.mlx = mlx;
    } else if own(convention::diffusers().name) {
        found.components = described(&found.file, options)?;
    }
    Ok(found)
}

/// An adapter that is not on disk yet, as it would be found at `path`; `beside` is any file it was made of.
pub(super) fn held(
    encoded: Encoded,
    convention: &'static Convention,
    path: &Path,
    beside: &Path,
) -> Result<Found> {
    let options = OpenOptions { residual_base: true, ..OpenOptions::default() };
    let source = Source::open(beside, options.access).in_file(beside)?;
    let file = Checkpoint::held(path, source, Some(encoded.metadata), encoded.tensors)?;
    let mut found = Found::new(file, convention);
    let config = encoded.config.filter(|_| convention.name == convention::peft().name);
    found.config = config.map(|text| PeftConfig::parse(&text, &[], true)).transpose()?;
    if convention.name == convention::diffusers().name {
        found.components = described(&found.file, &options)?;
    }
    Ok(found)
}

/// The configs that the header has for a pipeline's components.
fn described(file: &Checkpoint, options: &OpenOptions) -> Result<Vec<(String, PeftConfig)>> {
    let header = file.shards.first().and_then(|shard| shard.header.metadata.as_ref());
    match header.and_then(|header: &Metadata| header.get(DIFFUSERS_ENTRY)) {
        Some(text) => components(text, options).in_file(&file.path),
        None => Ok(Vec::new()),
    }
}

fn open_gguf(path: &Path, source: Source, options: &OpenOptions) -> Result<Found> {
    let opened = gguf::open(path, source, options.heads)?;
    let mut found = Found::new(opened.file, convention::gguf());
    found.architecture = Some((opened.architecture, opened.reordered));
    Ok(found)
}

/// The configs of a pipeline's components, each as PEFT would write it.
fn components(text: &str, options: &OpenOptions) -> Result<Vec<(String, PeftConfig)>> {
    let bad = |reason: String| {
        let reason = format!("the header's `{DIFFUSERS_ENTRY}`: {reason}");
        Error::from(ErrorKind::BadConfig { reason })
    };
    let document: Map<String, Value> =
        json::object(text.as_bytes()).map_err(|error| bad(error.to_string()))?;
    let mut configs: Vec<(String, Map<String, Value>)> = Vec::new();
    for (key, value) in document {
        let (component, field) = convention::split_component(&key)
            .ok_or_else(|| bad(format!("`{key}` belongs to no component")))?;
        let at = configs.iter().position(|(known, _)| known == component);
        let fields = match at.and_then(|at| configs.get_mut(at)) {
            Some((_, fields)) => fields,
            None => {
                let peft_type = ("peft_type".to_owned(), Value::from("LORA"));
                configs.push((component.to_owned(), Map::from_iter([peft_type])));
                let Some((_, fields)) = configs.last_mut() else { continue };
                fields
            }
        };
        fields.insert(field.to_owned(), value);
    }
    let parse = |(component, fields): (String, Map<String, Value>)| {
        let text = serde_json::to_vec(&fields).map_err(|error| bad(error.to_string()))?;
        let config = PeftConfig::parse(&text, &options.ignored_fields, options.residual_base)?;
        if !config.target_parameters.is_empty() {
            let reason =
                "its factors are of stacks of experts, which are read from PEFT's directories \
                with an adapter_config.json alone"
                    .to_owned();
            let field = format!("{component}.target_parameters");
            return Err(ErrorKind::UnsupportedField { field, reason }.into());
        }
        Ok((component, config))
    };
    configs.into_iter().map(parse).collect()
}

/// The tensor file and the config of whatever `path` is.
fn find(path: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    let metadata = std::fs::metadata(path).map_err(not_found).in_file(path)?;
    let directory = match metadata.is_dir() {
        true => path,
        false if is_pickle(path) => return Err(ErrorKind::Pickle).in_file(path),
        false => path.parent().unwrap_or(Path::new("")),
    };
    let config = directory.join(CONFIG_NAME);
    // Also one that cannot be read: what it would have said is not nothing.
    let config = config.symlink_metadata().is_ok().then_some(config);
    if !metadata.is_dir() {
        return Ok((path.to_path_buf(), config));
    }
    let written = convention::CONVENTIONS.iter().filter_map(|convention| match convention.output {
        Output::Directory(name) => Some(path.join(name)),
        _ => None,
    });
    if let Some(tensors) = written.into_iter().find(|tensors| tensors.is_file()) {
        return Ok((tensors, config));
    }
    let gguf = path.join(GGUF_NAME);
    if gguf.is_file() {
        return Ok((gguf, config));
    }
    let pickle = path.join("adapter_model.bin");
    if pickle.is_file() {
        return Err(ErrorKind::Pickle).in_file(&pickle);
    }
    if let Some(config) = &config {
        // A prompt or router type has no tensors to look for: say so first.
        PeftConfig::open(config, &[], true)?;
        let reason = "there is an adapter_config.json, but no adapter_model.safetensors".to_owned();
        return Err(ErrorKind::NoAdapter { reason }).in_file(path);
    }
    only_file(path).map(|file| (file, None))
}

fn only_file(directory: &Path) -> Result<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).in_file(directory)? {
        let file = entry.in_file(directory)?.path();
        if file.extension().is_some_and(|end| end == "safetensors") {
            files.push(file);
        }
    }
    let reason = match (files.pop(), files.is_empty()) {
        (Some(only), true) => return Ok(only),
        (None, _) => "the directory holds no .safetensors file",
        (Some(_), false) => "the directory holds several .safetensors files; name the one you mean",
    };
    Err(ErrorKind::NoAdapter { reason: reason.to_owned() }).in_file(directory)
}

/// The convention, and how many modules are updated, of a checkpoint that is an adapter: it updates more
/// modules than it holds matrices of a model's own. Models that come with adapters inside hold both.
pub(crate) fn as_adapter(file: &Checkpoint) -> Option<(&'static Convention, usize)> {
    let recognises = |convention: &&&Convention| file.names().any(convention.recognises);
    let convention = convention::CONVENTIONS.iter().find(recognises)?;
    let (mut updated, mut matrices) = (BTreeSet::new(), 0);
    for name in file.names() {
        match (convention.parse)(name).map(|key| (key.part, key.module)) {
            None | Some((Part::Weight | Part::Bias | Part::Original, _)) => {
                let matrix = file.tensor(name).is_some_and(|view| view.spec.shape.len() > 1);
                matrices += usize::from(matrix);
            }
            // Models have parameters of that name too.
            Some((Part::Alpha, _)) => {}
            Some((_, module)) => {
                updated.insert(module);
            }
        }
    }
    (matrices < updated.len()).then_some((*convention, updated.len()))
}

fn recognise(
    file: &Checkpoint,
    has_config: bool,
    options: &OpenOptions,
) -> Result<&'static Convention> {
    if let Some(name) = &options.convention {
        return convention::by_name(name).ok_or_else(|| {
            let names = convention::names(false);
            let reason = format!("convention `{name}` is unknown; there are {names}");
            ErrorKind::BadOption(reason).into()
        });
    }
    let header = file.shards.first().and_then(|shard| shard.header.metadata.as_ref());
    if header.is_some_and(|metadata| metadata.contains_key(DIFFUSERS_ENTRY)) {
        return Ok(convention::diffusers());
    }
    let kohya = file.names().any(|key| key.contains(".lora_down") || key.ends_with(".alpha"));
    if has_config && !kohya {
        return Ok(convention::peft());
    }
    // Alphas beside diffusers' names are kohya's way to say scales.
    let alphas = file.names().any(|key| key.ends_with(".alpha"));
    let mut recognised = convention::CONVENTIONS
        .iter()
        .copied()
        .filter(|convention| !alphas || convention.name != convention::diffusers().name)
        .filter(|convention| file.names().any(convention.recognises));
    recognised.next().ok_or_else(|| {
        let total = file.len();
        let first = file.names().next().unwrap_or("(no tensors)").to_owned();
        Error::from(ErrorKind::UnknownKeys { count: total, total, first }).in_file(&file.path)
    })
}
