//! Whether inputs are still those that a plan was made with, on whatever machine: by their sizes and by hashes of
//! what says most of them. Times and numbers of inodes are one machine's own.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{JobError, Locate, Result};
use crate::format::access::Source;
use crate::format::folder::files_below;
use crate::format::json::MODEL_CONFIG;
use crate::format::{Access, Checkpoint, hash};

/// Larger files that are no adapter's are known by their headers alone.
const SMALL: u64 = 64 << 20;
/// What stands for the header of a file that is no safetensors file.
const START: u64 = 1 << 20;
/// No header is longer: what says so is none.
const LONGEST_HEADER: u64 = 128 << 20;

/// One input file, as it was when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Its path.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of the part that is looked at.
    pub sha256: String,
    /// What is looked at.
    pub of: Looked,
}

/// The part of a file that its hash is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Looked {
    /// All of it: adapters, configs, tokenizers.
    All,
    /// The header of a safetensors file, the first MiB of another: a model's weights.
    Header,
}

/// The inputs of a plan, each once, as they are gathered.
#[derive(Debug, Default)]
pub(in crate::ops) struct Inputs(BTreeMap<PathBuf, Looked>);

impl Inputs {
    /// A model: its weights by their headers, its configs and indexes whole.
    pub(in crate::ops) fn model(&mut self, model: &Checkpoint) {
        let shards = model.shards.iter().map(|shard| (shard.path.clone(), Looked::Header));
        self.0.extend(shards);
        self.0.extend(configs(model).map(|path| (path, Looked::All)));
    }

    /// Files that are looked at whole: an adapter's.
    pub(in crate::ops) fn whole(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        self.0.extend(files.into_iter().map(|path| (path, Looked::All)));
    }

    /// A file beside a model, whole if it is small.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(in crate::ops) fn beside(&mut self, path: &Path) -> Result<()> {
        let bytes = Source::open(path, Access::Read).in_file(path)?.length();
        let looked = if bytes > SMALL { Looked::Header } else { Looked::All };
        self.0.entry(path.to_path_buf()).or_insert(looked);
        Ok(())
    }

    /// A file, or all files of a directory, the small ones whole.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub(in crate::ops) fn path(&mut self, path: &Path) -> Result<()> {
        if !path.is_dir() {
            return self.beside(path);
        }
        files_below(path)?.iter().try_for_each(|file| self.beside(&file.path))
    }

    /// The files as they are now; read on the current pool's threads.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(in crate::ops) fn identify(self) -> Result<Vec<InputFile>> {
        let files: Vec<_> = self.0.into_iter().collect();
        files.into_par_iter().map(|(path, looked)| look(path, looked)).collect()
    }
}

/// Configs and indexes of a model, which say how its weights are read.
fn configs(model: &Checkpoint) -> impl Iterator<Item = PathBuf> {
    let of_component = model.components.iter().flat_map(|component| {
        let index = component.index.as_ref().map(|index| index.file_name.as_str());
        index.into_iter().chain([MODEL_CONFIG]).map(|name| component.directory.join(name))
    });
    of_component.filter(|_| model.directory().is_some()).filter(|path| path.is_file())
}

fn look(path: PathBuf, of: Looked) -> Result<InputFile> {
    let file = Source::open(&path, Access::Read).in_file(&path)?;
    let sha256 = match of {
        Looked::All => hash::of_file(&path)?,
        Looked::Header => header_hash(&file, &path).in_file(&path)?,
    };
    let bytes = file.length();
    Ok(InputFile { path, bytes, sha256, of })
}

fn header_hash(file: &Source, path: &Path) -> io::Result<String> {
    let mut scratch = Vec::new();
    let start = |end: u64| 0..end.min(file.length());
    let first = file.bytes(start(8), &mut scratch)?;
    let length = <[u8; 8]>::try_from(first).map_or(0, u64::from_le_bytes);
    let is_header = path.extension().is_some_and(|ending| ending == "safetensors");
    let end = if is_header { length.saturating_add(8).min(LONGEST_HEADER) } else { START };
    Ok(hash::of_bytes(file.bytes(start(end), &mut scratch)?))
}

/// Fails unless all inputs are as they were; read on the current pool's threads.
///
/// # Errors
/// [`JobError::Input`], of the first that is not; one that cannot be read.
pub(in crate::ops) fn check(files: &[InputFile]) -> Result<()> {
    let check = |planned: &InputFile| {
        let found = look(planned.path.clone(), planned.of)?;
        let what = match (found.bytes == planned.bytes, planned.of) {
            (false, _) => format!("it has {} bytes, and had {}", found.bytes, planned.bytes),
            (true, _) if found.sha256 == planned.sha256 => return Ok(()),
            (true, Looked::All) => "its contents are others".to_owned(),
            (true, Looked::Header) => "its header is another".to_owned(),
        };
        Err(JobError::Input { what }).in_file(&planned.path)
    };
    // The first in order, so that every worker says the same.
    let checked: Vec<Result<()>> = files.par_iter().map(check).collect();
    checked.into_iter().collect()
}
