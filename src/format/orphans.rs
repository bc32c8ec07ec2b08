//! Temporaries of runs that were killed: how they are told from those of runs that are under way.
//!
//! Every temporary is locked while its output is built, and the system lets go of a killed process's locks.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::checkpoint::not_found;
use super::kept::{PARTIAL, beside, remove_any};
use super::live::still;
use super::natural::natural;
use super::staging::parent_of;
use crate::error::{Locate, Result};

/// Folders in folders that are looked into.
const DEEPEST: usize = 16;
/// Characters that make a temporary's name its own.
const RANDOM: usize = 6;

/// What is known of the run that made a temporary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// It is under way.
    Alive,
    /// It ended without removing it.
    Killed,
    /// The file system has no locks, so nobody can tell.
    Unknown,
}

/// Whether a file name is that of a temporary: `.NAME.partial-` and six letters or digits.
pub fn is_temporary(name: &str) -> bool {
    let random =
        |text: &str| text.len() == RANDOM && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let split = name.strip_prefix('.').and_then(|name| name.rsplit_once(PARTIAL));
    split.is_some_and(|(target, end)| !target.is_empty() && random(end))
}

/// Whether a file name is that of what `merge --resume` keeps for its next run.
pub fn is_kept(name: &str) -> bool {
    name.strip_prefix('.')
        .and_then(|name| name.strip_suffix(".resume"))
        .is_some_and(|n| !n.is_empty())
}

/// What lies in a folder and below it and is called as a temporary or as what is kept, in natural order. Links are
/// not followed, and nothing is looked for inside of what is found.
///
/// # Errors
/// If the folder itself cannot be listed. What cannot be listed below it is left out.
pub fn left_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(folder, 0, &mut found).map_err(not_found).in_file(folder)?;
    found.sort_by(|a, b| natural(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(found)
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name().to_string_lossy().into_owned(), entry.file_type()?);
        let left = is_temporary(&name) && (kind.is_file() || kind.is_dir());
        if left || (is_kept(&name) && kind.is_dir() && entry.path().join("lock").is_file()) {
            found.push(entry.path());
        } else if kind.is_dir() && depth < DEEPEST {
            // One that may not be read hides what is in it, and no more.
            let _ = collect(&entry.path(), depth + 1, found);
        }
    }
    Ok(())
}

/// What runs towards this target left when they were killed, or are at work on.
pub fn left_over(target: &Path) -> Vec<PathBuf> {
    let prefix = beside(target, PARTIAL).to_string_lossy().into_owned();
    let entries = fs::read_dir(parent_of(target)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    let left = names.filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with(&prefix) && is_temporary(&name)
    });
    let mut left: Vec<_> = left.map(|name| target.with_file_name(name)).collect();
    left.sort();
    left
}

/// The file whose lock says whether a temporary's run is under way.
fn locked_file(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if is_kept(&name) { path.join("lock") } else { path.to_path_buf() }
}

/// Locks what lies there, if nobody else has.
fn lock(path: &Path) -> std::result::Result<File, Maker> {
    let file = File::open(locked_file(path)).map_err(|_| Maker::Unknown)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Maker::Alive),
        Err(TryLockError::Error(_)) => Err(Maker::Unknown),
    }
}

/// What is known of the run that made a temporary.
pub fn maker(path: &Path) -> Maker {
    lock(path).map_or_else(|maker| maker, |_| Maker::Killed)
}

/// Removes a temporary, if its run was killed; says what is known of the run.
///
/// # Errors
/// Whatever the operating system says of removing it.
pub fn remove(path: &Path) -> Result<Maker> {
    let _still = still();
    // Held while it goes: a run that makes one of this name meanwhile sees that it is not its own.
    let _lock = match lock(path) {
        Ok(lock) => lock,
        Err(maker) => return Ok(maker),
    };
    remove_any(path).in_file(path)?;
    Ok(Maker::Killed)
}

/// Bytes that a file, or all files of a directory, take.
pub fn size(path: &Path) -> u64 {
    let Ok(data) = path.symlink_metadata() else { return 0 };
    if !data.is_dir() {
        return data.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_temporaries() {
        for name in [".out.partial-aB3xYz", ".a.safetensors.partial-000000"] {
            assert!(is_temporary(name), "{name}");
        }
        for name in [
            "out.partial-aB3xYz",
            ".out.partial-aB3xY",
            ".out.partial-aB3xYzz",
            ".out.partial-aB3xY.",
            "..partial-aB3xYz.txt",
            ".partial-aB3xYz",
            ".out.resume",
        ] {
            assert!(!is_temporary(name), "{name}");
        }
        assert!(is_kept(".out.resume") && !is_kept(".resume") && !is_kept("out.resume"));
    }
}
