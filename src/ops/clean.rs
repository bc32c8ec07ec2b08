//! clean: removes what runs that were killed have left beside their outputs, and nothing else.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Result, human_bytes};
use crate::format::orphans::{self, Maker};

/// Where to look, and what to remove.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Folders; what lies below them is looked at too.
    pub paths: Vec<PathBuf>,
    /// Also remove the finished files that interrupted `merge --resume` runs keep.
    pub kept: bool,
    /// Remove nothing.
    pub dry_run: bool,
}

/// Something that was left.
#[derive(Debug, Clone, Serialize)]
pub struct Left {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
}

/// What was found, and what became of it.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Nothing was removed, for nothing was to be.
    pub dry_run: bool,
    /// Temporaries of killed runs: removed, or with `dry_run` what would be.
    pub removed: Vec<Left>,
    /// Temporaries of runs that are under way: they stay.
    pub alive: Vec<Left>,
    /// Temporaries of which nobody can tell, since the file system has no locks: they stay.
    pub unknown: Vec<Left>,
    /// Finished files that an interrupted `merge --resume` goes on from, where these shall stay.
    pub kept: Vec<Left>,
}

impl Report {
    /// Whether nothing stays that a run is at work on, or may be.
    pub fn is_clean(&self) -> bool {
        self.alive.is_empty() && self.unknown.is_empty()
    }
}

/// Removes the temporaries of killed runs below every path.
///
/// # Errors
/// If a path cannot be listed, or a temporary cannot be removed.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report { dry_run: options.dry_run, ..Report::default() };
    for path in &options.paths {
        for found in orphans::left_below(path)? {
            sort(found, options, &mut report)?;
        }
    }
    Ok(report)
}

fn sort(path: PathBuf, options: &Options, report: &mut Report) -> Result<()> {
    let left = Left { bytes: orphans::size(&path), path };
    let name = left.path.file_name().unwrap_or_default().to_string_lossy();
    if orphans::is_kept(&name) && !options.kept {
        report.kept.push(left);
        return Ok(());
    }
    let maker = match options.dry_run {
        true => orphans::maker(&left.path),
        false => orphans::remove(&left.path)?,
    };
    match maker {
        Maker::Killed => report.removed.push(left),
        Maker::Alive => report.alive.push(left),
        Maker::Unknown => report.unknown.push(left),
    }
    Ok(())
}

/// What killed runs have left in a folder, and below it, in words; nothing if there is nothing.
pub(in crate::ops) fn warning(folder: &Path) -> Option<String> {
    let found = run(&Options { paths: vec![folder.to_path_buf()], kept: false, dry_run: true });
    let left = found.ok()?.removed;
    let bytes: u64 = left.iter().map(|left| left.bytes).sum();
    let what = match left.as_slice() {
        [] => return None,
        [one] => format!("{} is", one.path.display()),
        many => format!("{} temporaries are", many.len()),
    };
    let folder = folder.display();
    Some(format!(
        "{what} left of killed runs ({}); `lora-tool clean {folder}` removes that",
        human_bytes(bytes)
    ))
}
