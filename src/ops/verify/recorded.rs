//! What the header of a merged checkpoint says that it was made of.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{ErrorKind, Locate, Result};
use crate::format::location::locate;
use crate::ops::merge;
use crate::ops::shared::base::open_merged;
use crate::ops::shared::provenance::MADE;

/// The options that a merged checkpoint was made by, as its header has them. `named` may name the base, or the
/// adapters; what it does not name is looked for by its name, beside the checkpoint and in the current directory.
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
        let inputs: Option<Vec<&str>> = inputs.map(|input| input.get("name")?.as_str()).collect();
        Some((made.get("base_name")?.as_str()?, inputs?, made.get("options")?.as_object()?.clone()))
    });
    let Some((base, inputs, asked)): Option<(&str, Vec<&str>, Map<String, Value>)> = said else {
        let reason =
            "its header does not say what it was made of: name it with --base and --adapter";
        return Err(ErrorKind::BadOption(reason.to_owned())).in_file(merged);
    };
    let base = match named.base.as_os_str().is_empty() {
        true => find(base, "base", merged)?,
        false => named.base.clone(),
    };
    let adapters = match named.adapters.as_slice() {
        [] => inputs.iter().map(|name| find(name, "adapter", merged)).collect::<Result<_>>()?,
        named => named.iter().map(|input| input.path.clone()).collect::<Vec<_>>(),
    };
    let mut asked = asked;
    for option in merge::CHECKPOINTS {
        if let Some(name) = asked.get(option).and_then(Value::as_str) {
            let path = find(name, "checkpoint", merged)?;
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

/// The input of this name: beside the checkpoint, in the current directory, or in the Hub's cache.
fn find(name: &str, what: &str, merged: &Path) -> Result<PathBuf> {
    // A header is a stranger's text: only a name is looked for, and no path.
    let is_name = Path::new(name).file_name().is_some_and(|last| last == name);
    let beside = merged.parent().map(|folder| folder.join(name)).filter(|_| is_name);
    let here = Some(PathBuf::from(name)).filter(|_| is_name);
    let repository = name.split_once('/').filter(|(_, rest)| !rest.contains('/'));
    let cached = repository.and_then(|_| locate(Path::new(name)).ok());
    // What is in no cache stays the path that it would be.
    let cached = cached.filter(|found| found != Path::new(name));
    let mut places = beside.into_iter().chain(here).chain(cached);
    places.find(|path| path.exists()).ok_or_else(|| {
        let help = match what {
            "checkpoint" => "name everything on the command line, as for the merge".to_owned(),
            _ => format!("name it with --{what}"),
        };
        let reason = format!(
            "its header says that it was made of the {what} `{name}`, which is neither beside it nor here; \
             {help}"
        );
        crate::Error::from(ErrorKind::BadOption(reason)).in_file(merged)
    })
}
