//! A model's checkpoint, for every verb that takes one: an adapter in its place is refused, since its
//! factors would be taken for weights. Verbs that look at its weights have them as numbers, whatever they
//! are stored as.

use std::path::Path;

use crate::adapter::files::as_adapter;
use crate::error::{ErrorKind, FileKind, HeaderError, Locate, ModelError, Result};
use crate::format::gguf::MAGIC;
use crate::format::{Access, Checkpoint};
use crate::weight::numbers;

/// Opens a base, its quantised weights decoded. `with` is what the verb was given beside it, for the advice.
///
/// # Errors
/// As [`open_stored`] and [`numbers`].
pub(crate) fn open_base(path: &Path, with: &[&Path], access: Access) -> Result<Checkpoint> {
    open_model(path, "a base", with, access)
}

/// Fails as [`open_stored`] does of what only says names, shapes and a config; a config alone is enough.
///
/// # Errors
/// As [`open_stored`].
pub(crate) fn check_reference(reference: Option<&Path>, access: Access) -> Result<()> {
    let Some(path) = reference else { return Ok(()) };
    match open_stored(path, "a base", &[], access) {
        Err(error) if matches!(error.kind(), ErrorKind::NoCheckpoint { .. }) => Ok(()),
        found => found.map(|_| ()),
    }
}

/// Opens a checkpoint that is to be a base, or made of one, its quantised weights decoded: `expected` says which.
///
/// # Errors
/// As [`open_stored`] and [`numbers`].
pub(crate) fn open_model(
    path: &Path,
    expected: &'static str,
    with: &[&Path],
    access: Access,
) -> Result<Checkpoint> {
    numbers(open_stored(path, expected, with, access)?)
}

/// Opens what a merge wrote, as it is stored.
///
/// # Errors
/// As [`open_stored`]; of GGUF files, which no merge writes.
pub(crate) fn open_merged(path: &Path, access: Access) -> Result<Checkpoint> {
    let merged = open_stored(path, "a merged", &[], access)?;
    match FileKind::of(&MAGIC).filter(|_| merged.is_gguf()) {
        Some(kind) => Err(HeaderError::OtherFormat { kind }).in_file(path),
        None => Ok(merged),
    }
}

/// Opens a checkpoint that is to be a base, or made of one, as it is stored.
///
/// # Errors
/// As [`Checkpoint::open`], [`ModelError::Adapter`].
pub(crate) fn open_stored(
    path: &Path,
    expected: &'static str,
    with: &[&Path],
    access: Access,
) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(path, access)?;
    let Some((convention, modules)) = as_adapter(&checkpoint) else { return Ok(checkpoint) };
    let hint = advice(path, with, access);
    let convention = convention.name;
    Err(ModelError::Adapter { convention, modules, expected, hint }).in_file(path)
}

/// What to do with an adapter and what stands beside it.
fn advice(path: &Path, with: &[&Path], access: Access) -> String {
    let is_model = |path: &&&Path| {
        Checkpoint::open(path, access).is_ok_and(|found| as_adapter(&found).is_none())
    };
    if let Some(model) = with.iter().find(is_model) {
        let (model, adapter) = (model.display(), path.display());
        return format!("the base comes first: lora-tool merge {model} {adapter} -o OUT");
    }
    if with.is_empty() {
        return "name the checkpoint of the model itself".to_owned();
    }
    let paths = std::iter::once(&path).chain(with).map(|path| path.display().to_string());
    let paths = paths.collect::<Vec<_>>().join(" ");
    format!("to make one adapter of several: lora-tool combine {paths} -o OUT")
}
