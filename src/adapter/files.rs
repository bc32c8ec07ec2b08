//! Which files an adapter is, of whatever container, and which convention they are in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::convention::{self, Config, Convention, Opened, Output, Part, ReadOptions};
use super::expert_factors;
use super::new_adapter::{Container, Encoded, GGUF_NAME};
use super::open_options::OpenOptions;
use super::sidecar::{CONFIG_NAME, PeftConfig};
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::access::{Source, read_config};
use crate::format::checkpoint::{is_pickle, not_found};
use crate::format::{Checkpoint, json};

/// The index of an adapter in several files. PEFT writes none, and reads none; trainers of large ones do.
const SHARDED_NAME: &str = "adapter_model.safetensors.index.json";

/// What was found at a path, and the convention it is in.
pub(super) type Found = (&'static Convention, Opened);

/// Opens whatever adapter is at `path`.
pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Found> {
    let (tensors, config) = find(path)?;
    let lone = !path.is_dir();
    let read = ReadOptions {
        ignored_fields: &options.ignored_fields,
        residual_base: options.residual_base,
        heads: options.heads,
    };
    if lone || tensors.ends_with(GGUF_NAME) {
        let source = Source::open(&tensors, options.access).map_err(not_found).in_file(&tensors)?;
        let container = Container::of(&source);
        let mut known = convention::CONVENTIONS.iter();
        let known = known.find(|known| known.hooks.container == container);
        if let Some((known, open)) =
            known.and_then(|known| Some((known, known.hooks.open_container?)))
        {
            return Ok((known, open(&tensors, source, &read)?));
        }
    }
    let file = Checkpoint::open(&tensors, options.access)?;
    let owner = match config.as_deref() {
        Some(config) => owner(config, lone)?.map(|owner| (owner, config)),
        None => None,
    };
    let convention = recognise(&file, owner, options)?;
    let file = match convention.has_stacks() {
        true => file,
        false => expert_factors::apart(file, convention)?,
    };
    let config = owner.filter(|(owner, _)| *owner == convention);
    let config = config.map(|(_, config)| Config::File(config));
    let opened = (convention.hooks.open_sidecar)(Opened::new(file), config, &read)?;
    Ok((convention, opened))
}

/// An adapter that is not on disk yet, as it would be found at `path`; `beside` is any file it was made of.
pub(super) fn held(
    encoded: Encoded,
    convention: &'static Convention,
    path: &Path,
    beside: &Path,
) -> Result<Found> {
    let source = Source::open(beside, OpenOptions::default().access).in_file(beside)?;
    let file = Checkpoint::held(path, source, Some(encoded.metadata), encoded.tensors)?;
    let read = ReadOptions { residual_base: true, ..ReadOptions::default() };
    let config = encoded.config.as_deref().map(Config::Text);
    let opened = (convention.hooks.open_sidecar)(Opened::new(file), config, &read)?;
    Ok((convention, opened))
}

/// The convention of a config. One that nobody knows is taken for PEFT's in a directory, and says then what is wrong
/// with it; beside a lone file it is a stranger's, and no part of the adapter.
fn owner(config: &Path, lone: bool) -> Result<Option<&'static Convention>> {
    let text = read_config(config).in_file(config)?;
    let document = match json::tree(&text) {
        Ok(document) => document,
        Err(error) if lone => {
            return Err(ErrorKind::BadConfig { reason: error.to_string() }).in_file(config);
        }
        Err(_) => return Ok(Some(convention::peft())),
    };
    let owner = document.as_object().and_then(|document| {
        let mut known = convention::CONVENTIONS.iter().copied();
        known.find(|known| (known.hooks.owns_config)(document))
    });
    Ok(owner.or((!lone).then(convention::peft)))
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
    let sharded = path.join(SHARDED_NAME);
    if sharded.is_file() {
        return Ok((sharded, config));
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
        let serialised = path.join("adapter_model.tensors").is_file();
        let what = if serialised {
            ": adapter_model.tensors is tensorizer's, which is not read"
        } else {
            ""
        };
        let reason =
            format!("there is an adapter_config.json, but no adapter_model.safetensors{what}");
        return Err(ErrorKind::NoAdapter { reason }).in_file(path);
    }
    match only_file(path) {
        Ok(file) => Ok((file, None)),
        Err(error) => below(path)?.ok_or(error),
    }
}

/// PEFT keeps an adapter that is not called `default` one directory below (`save_pretrained`), trainers
/// their checkpoints.
fn below(directory: &Path) -> Result<Option<(PathBuf, Option<PathBuf>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).in_file(directory)? {
        let inside = entry.in_file(directory)?.path();
        if inside.join(CONFIG_NAME).is_file() {
            found.push(inside);
        }
    }
    found.sort();
    match found.as_slice() {
        [] => Ok(None),
        [only] => find(only).map(Some),
        several => {
            let names = several.iter().filter_map(|path| path.file_name());
            let names: Vec<_> = names.map(|name| format!("`{}`", name.to_string_lossy())).collect();
            let reason = format!(
                "there are {} one directory below ({}); name the one you mean",
                several.len(),
                names.join(", ")
            );
            Err(ErrorKind::NoAdapter { reason }).in_file(directory)
        }
    }
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
    owner: Option<(&'static Convention, &Path)>,
    options: &OpenOptions,
) -> Result<&'static Convention> {
    let claimed = match owner {
        Some((owner, config)) => (owner.hooks.claims)(file, config)?.then_some(owner),
        None => None,
    };
    if let Some(name) = &options.convention {
        return convention::by_name(name).ok_or_else(|| {
            let names = convention::names(false);
            let reason = format!("convention `{name}` is unknown; there are {names}");
            ErrorKind::BadOption(reason).into()
        });
    }
    let known = || convention::CONVENTIONS.iter().copied();
    if let Some(header) = file.shards.first().and_then(|shard| shard.header.metadata.as_ref()) {
        let has = |entry: &str| header.contains_key(entry);
        if let Some(convention) = known().find(|known| known.hooks.header_entry.is_some_and(has)) {
            return Ok(convention);
        }
    }
    if let Some(convention) = claimed {
        return Ok(convention);
    }
    let mut recognised = known()
        .filter(|known| file.names().any(known.recognises))
        .filter(|known| !file.names().any(known.hooks.disowns));
    recognised.next().ok_or_else(|| {
        let total = file.len();
        let first = file.names().next().unwrap_or("(no tensors)").to_owned();
        Error::from(ErrorKind::UnknownKeys { count: total, total, first }).in_file(&file.path)
    })
}
