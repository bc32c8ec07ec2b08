//! Which paths below a folder are adapters.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::adapter::sidecar::CONFIG_NAME;
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::checkpoint::is_pickle;
use crate::format::folder::{FoundFile, files_below};
use crate::format::{Access, Checkpoint};

/// What may be an adapter: a directory with a config, or a file.
#[derive(Debug)]
pub(in crate::ops) struct Candidate {
    pub(in crate::ops) path: PathBuf,
    /// Its path below the folder that was named; its own name, if it was named itself.
    pub(in crate::ops) name: String,
}

/// Names of files that make their directory an adapter.
const MARKS: [&str; 3] = [CONFIG_NAME, "adapter_model.safetensors", "adapter_model.bin"];

/// What may be an adapter at a path and below it, in natural order.
pub(in crate::ops) fn candidates(path: &Path) -> Result<Vec<Candidate>> {
    let own = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    if path.is_file() || MARKS.iter().any(|mark| path.join(mark).is_file()) {
        return Ok(vec![Candidate { path: path.to_path_buf(), name: own }]);
    }
    if !path.exists() {
        return Err(ErrorKind::NotFound).in_file(path);
    }
    let files = files_below(path)?;
    let directories: BTreeSet<&str> =
        files.iter().filter(|file| MARKS.contains(&last(file))).map(above).collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for file in &files {
        let directory = above(file);
        if directories.contains(directory) {
            if seen.insert(directory) {
                found.push(Candidate { path: path.join(directory), name: directory.to_owned() });
            }
        } else if is_weights(&file.path) {
            found.push(Candidate { path: file.path.clone(), name: file.relative.clone() });
        }
    }
    Ok(found)
}

fn last(file: &FoundFile) -> &str {
    file.relative.rsplit('/').next().unwrap_or_default()
}

fn above(file: &FoundFile) -> &str {
    file.relative.rsplit_once('/').map_or("", |(directory, _)| directory)
}

fn is_weights(path: &Path) -> bool {
    let ends = |ending| path.extension().is_some_and(|end| end.eq_ignore_ascii_case(ending));
    ends("safetensors") || ends("gguf") || is_pickle(path)
}

/// Whether a path is a folder of several adapters, and neither an adapter nor a checkpoint itself. Directories of
/// adapters look like a pipeline's components.
pub fn is_folder(path: &Path, access: Access) -> bool {
    let Some(found) = candidates(path).ok().filter(|found| path.is_dir() && found.len() > 1) else {
        return false;
    };
    let open = OpenOptions { access, ..OpenOptions::default() };
    let reads = |one: &Candidate| Adapter::open(&one.path, &open).is_ok();
    let marked = found.iter().any(|one| one.path.is_dir());
    marked || (Checkpoint::open(path, access).is_err() && found.iter().any(reads))
}
