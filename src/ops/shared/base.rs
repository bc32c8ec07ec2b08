//! A model's checkpoint, for every verb that takes one: an adapter in its place is refused, since its
//! factors would be taken for weights. Verbs that look at its weights have them as numbers, whatever they
//! are stored as.

use std::path::{Path, PathBuf};

use crate::adapter::files::as_adapter;
use crate::error::{ErrorKind, Locate, ModelError, Result};
use crate::format::access::read_config_if_there;
use crate::format::location::{fetch_command, locate};
use crate::format::{Access, Checkpoint, json};
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
/// As [`open_stored`].
pub(crate) fn open_merged(path: &Path, access: Access) -> Result<Checkpoint> {
    open_stored(path, "a merged", &[], access)
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

/// The base that the configs of adapters name, where they all name one and it is here: a path, or in the local Hub
/// cache.
///
/// # Errors
/// [`ModelError::NoBase`], which says what they name.
pub fn named_base(adapters: &[&Path]) -> Result<PathBuf> {
    let mut bases: Vec<(String, PathBuf)> = Vec::new();
    for adapter in adapters {
        let hint = match base_model(adapter) {
            None => format!(
                "{} names no base model in an adapter_config.json; name the base first: lora-tool merge BASE ADAPTER -o OUT",
                adapter.display()
            ),
            Some(name) => match locate(Path::new(&name)) {
                Ok(path) if path.exists() => {
                    if bases.iter().all(|(_, other)| *other != path) {
                        bases.push((name, path));
                    }
                    continue;
                }
                _ => format!(
                    "{} names `{name}`, which is not here{}; name the base first: lora-tool merge BASE ADAPTER -o OUT",
                    adapter.display(),
                    fetch_command(Path::new(&name))
                        .map(|line| format!(" ({line})"))
                        .unwrap_or_default()
                ),
            },
        };
        return Err(ModelError::NoBase { hint }.into());
    }
    match bases.as_slice() {
        [(_, base)] => Ok(base.clone()),
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
            let hint = format!(
                "the adapters name several bases ({}); name the one to merge into first",
                names.join(", ")
            );
            Err(ModelError::NoBase { hint }.into())
        }
    }
}

/// The base model that an adapter's config names.
fn base_model(adapter: &Path) -> Option<String> {
    let text = read_config_if_there(&adapter.join("adapter_config.json")).ok()??;
    let config = json::object(&text).ok()?;
    Some(config.get("base_model_name_or_path")?.as_str()?.to_owned())
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
