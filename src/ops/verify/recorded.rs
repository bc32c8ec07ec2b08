//! What the header of a merged checkpoint says that it was made of.

use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{ErrorKind, Locate, Result};
use crate::format::location;
use crate::ops::merge;
use crate::ops::shared::base::open_merged;
use crate::ops::shared::provenance::{self, MADE};

/// The options that a merged checkpoint was made by, as its header has them. `named` may name the base, or the
/// adapters; what it does not name is looked for by its bytes, beside the checkpoint, in the current directory and in the
/// Hub's cache.
///
/// # Errors
/// If the header does not say it, an input is not found, or `named` says how the merge was made.
pub fn recorded(merged: &Path, named: &merge::Options) -> Result<merge::Options> {
    refuse_options(named).in_file(merged)?;
    let access = named.open.access;
    let file = open_merged(merged, access)?;
    let header = file.shards.first().and_then(|shard| shard.header.metadata.as_ref());
    let made = header.and_then(|header| serde_json::from_str::<Value>(header.get(MADE)?).ok());
    let said = made.as_ref().and_then(|made| {
        let inputs = made.get("inputs")?.as_array()?.iter();
        let inputs: Option<Vec<_>> = inputs.map(|input| input.get("files")?.as_object()).collect();
        Some((made.get("base")?.as_object()?, inputs?, made.get("options")?.as_object()?.clone()))
    });
    let Some((base, inputs, mut asked)) = said else {
        let reason =
            "its header does not say what it was made of: name it with --base and --adapter";
        return Err(ErrorKind::BadOption(reason.to_owned())).in_file(merged);
    };
    let places = Places::around(merged);
    let base = match named.base.as_os_str().is_empty() {
        true => places.find(base, "base", merged)?,
        false => named.base.clone(),
    };
    let adapters = match named.adapters.as_slice() {
        [] => {
            let found = inputs.into_iter().map(|files| places.find(files, "adapter", merged));
            found.collect::<Result<_>>()?
        }
        named => named.iter().map(|input| input.path.clone()).collect::<Vec<_>>(),
    };
    for option in merge::CHECKPOINTS {
        if let Some(files) = asked.get(option).and_then(Value::as_object) {
            let path = places.find(files, "checkpoint", merged)?;
            asked.insert(option.to_owned(), path.to_string_lossy().into_owned().into());
        }
    }
    let mut options = merge::restored(asked, base, &adapters).in_file(merged)?;
    options.open.access = access;
    Ok(options)
}

/// Fails if it is said how the merge was made, which the header says.
fn refuse_options(named: &merge::Options) -> Result<()> {
    let weights = named.adapters.iter().all(|input| input.weight == 1.0);
    // The weights alone are always there.
    if merge::asked(named)?.len() > 1 || !weights {
        let reason = "options that say how a merge was made go with --base and --adapter; without both, \
                      its header says it";
        return Err(ErrorKind::BadOption(reason.to_owned()).into());
    }
    Ok(())
}

/// Where inputs are looked for.
struct Places(Vec<PathBuf>);

impl Places {
    /// What lies beside a checkpoint, in the current directory, and in the Hub's cache, in this order.
    fn around(merged: &Path) -> Self {
        let parent = merged.parent().filter(|parent| !parent.as_os_str().is_empty());
        let here = Path::new(".");
        let folders = parent.into_iter().chain([here]);
        let lying = folders.flat_map(|folder| {
            let entries =
                folder.read_dir().into_iter().flatten().filter_map(std::result::Result::ok);
            let mut paths: Vec<_> = entries.map(|entry| folder.join(entry.file_name())).collect();
            paths.sort();
            paths
        });
        Self(lying.chain(location::cached()).collect())
    }

    /// The input that consists of these files. What it is called does not matter: its bytes tell it.
    fn find(&self, files: &Map<String, Value>, what: &str, merged: &Path) -> Result<PathBuf> {
        let found = self.0.iter().find(|place| is_input(place, files));
        found.cloned().ok_or_else(|| {
            let help = match what {
                "checkpoint" => "name everything on the command line, as for the merge".to_owned(),
                _ => format!("name it with --{what}"),
            };
            let reason = format!(
                "its header says that it was made of the {what} with {}, which is neither beside it nor here \
                 nor in the Hub's cache; {help}",
                described(files)
            );
            crate::Error::from(ErrorKind::BadOption(reason)).in_file(merged)
        })
    }
}

/// Whether an input consists of files that a header knows. A header is a stranger's text: only names are looked for below
/// a place, and no path that leaves it.
fn is_input(place: &Path, files: &Map<String, Value>) -> bool {
    let stays =
        |name: &str| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    let single =
        place.file_name().is_some_and(|name| files.keys().any(|file| name == file.as_str()));
    let mut files = files.iter();
    match single && place.is_file() {
        true => files.len() == 1 && files.all(|(_, known)| provenance::is_file(place, known)),
        false => {
            files.len() > 0
                && files.all(|(name, known)| {
                    stays(name) && provenance::is_file(&place.join(name), known)
                })
        }
    }
}

/// The first of some files, in a few words: its name and the start of its hash.
fn described(files: &Map<String, Value>) -> String {
    let Some((name, known)) = files.iter().next() else { return "no file".to_owned() };
    let hash = known.as_str().or_else(|| known.get("middle")?.as_str()).unwrap_or_default();
    let start: String = hash.chars().take(12).collect();
    match known.get("bytes").and_then(Value::as_u64) {
        Some(bytes) => format!("`{name}` of {bytes} bytes"),
        None => format!("`{name}` of SHA-256 {start}…"),
    }
}
