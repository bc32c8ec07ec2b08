//! Which files of a directory are the one model in it, as transformers and diffusers would find it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{SINGLE_NAMES, is_pickle};
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::index::INDEX_SUFFIX;

/// The files of one model.
pub(super) enum Model {
    Index(PathBuf),
    /// Names below the model's directory.
    Files(Vec<String>),
    /// The file that was named.
    Lone(PathBuf),
}

pub(super) struct Listing {
    pub(super) files: Vec<String>,
    pub(super) directories: Vec<String>,
}

pub(super) fn list(directory: &Path) -> Result<Listing> {
    let mut listing = Listing { files: Vec::new(), directories: Vec::new() };
    for entry in std::fs::read_dir(directory).in_file(directory)? {
        let entry = entry.in_file(directory)?;
        // A name that is no UTF-8 could not be repeated in an output or an index.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        if entry.path().is_dir() {
            listing.directories.push(name);
        } else {
            listing.files.push(name);
        }
    }
    listing.files.sort();
    listing.directories.sort();
    Ok(listing)
}

/// Finds the one model of a directory, as transformers and diffusers would; `None` if there is none
/// but there may be components below.
pub(super) fn find_model(directory: &Path) -> Result<Option<Model>> {
    let Listing { files, directories } = list(directory)?;
    if let Some(single) = SINGLE_NAMES.iter().find(|name| files.iter().any(|file| file == *name)) {
        return Ok(Some(Model::Files(vec![(*single).to_owned()])));
    }
    let indexes: Vec<_> = files.iter().filter(|file| file.ends_with(INDEX_SUFFIX)).collect();
    match indexes.as_slice() {
        [] => {}
        [index] => return Ok(Some(Model::Index(directory.join(index)))),
        several => return Err(several_models(directory, several)),
    }
    let weights: Vec<_> = files.iter().filter(|file| file.ends_with(".safetensors")).collect();
    if let Some(shards) = numbered_shards(directory, &weights)? {
        return Ok(Some(Model::Files(shards)));
    }
    let has_components = directories.iter().any(|name| {
        list(&directory.join(name)).is_ok_and(|below| {
            below.files.iter().any(|f| f.ends_with(".safetensors") || f.ends_with(INDEX_SUFFIX))
        })
    });
    if has_components {
        return Ok(None);
    }
    match weights.as_slice() {
        [] => find_gguf(directory, &files),
        [only] => Ok(Some(Model::Files(vec![(*only).clone()]))),
        several => Err(several_models(directory, several)),
    }
}

/// The one GGUF model of a directory without safetensors: a file, or a set of them.
fn find_gguf(directory: &Path, files: &[String]) -> Result<Option<Model>> {
    let ggufs: Vec<_> = files.iter().filter(|file| file.ends_with(".gguf")).collect();
    let Some(first) = ggufs.first() else {
        return match files.iter().find(|file| is_pickle(Path::new(file))) {
            Some(pickle) => Err(ErrorKind::Pickle).in_file(&directory.join(pickle)),
            None => Ok(None),
        };
    };
    let parts = gguf_parts(first).unwrap_or_else(|| vec![(*first).clone()]);
    match ggufs.iter().all(|file| parts.contains(*file)) {
        true => Ok(Some(Model::Files(parts))),
        false => Err(several_models(directory, &ggufs)),
    }
}

fn several_models(directory: &Path, names: &[&String]) -> Error {
    let names: Vec<_> = names.iter().take(4).map(|name| name.as_str()).collect();
    let reason =
        format!("several unrelated files ({}, …); name the one you mean", names.join(", "));
    Error::from(ErrorKind::NoCheckpoint { reason }).in_file(directory)
}

/// `NAME-00001-of-00003.safetensors` and its siblings, all of them or an error.
fn numbered_shards(directory: &Path, files: &[&String]) -> Result<Option<Vec<String>>> {
    let numbered: Vec<_> =
        files.iter().filter_map(|file| Some((shard_number(file)?, *file))).collect();
    let Some(((stem, _, total), _)) = numbered.first() else { return Ok(None) };
    if numbered.iter().any(|((other, _, count), _)| other != stem || count != total) {
        return Err(several_models(directory, files));
    }
    let present: BTreeSet<usize> = numbered.iter().map(|((_, number, _), _)| *number).collect();
    if let Some(missing) = (1..=*total).find(|number| !present.contains(number)) {
        let shard = format!("{stem}-{missing:05}-of-{total:05}.safetensors");
        let reason = format!("shard `{shard}` is missing");
        return Err(ErrorKind::NoCheckpoint { reason }).in_file(directory);
    }
    Ok(Some(numbered.into_iter().map(|(_, file)| file.clone()).collect()))
}

/// All files of a split GGUF model, from the name of any.
pub(crate) fn gguf_parts(file: &str) -> Option<Vec<String>> {
    let (stem, _, total) = numbered(file.strip_suffix(".gguf")?)?;
    Some((1..=total).map(|number| format!("{stem}-{number:05}-of-{total:05}.gguf")).collect())
}

/// (stem, number, total) of a numbered shard's file name.
fn shard_number(file: &str) -> Option<(&str, usize, usize)> {
    numbered(file.strip_suffix(".safetensors")?)
}

fn numbered(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, total) = name.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let total: usize = total.parse().ok()?;
    // A claim of a million shards is a mistake, and would only be walked to say so.
    (1..=1_000_000).contains(&total).then_some(())?;
    Some((stem, number.parse().ok()?, total))
}
