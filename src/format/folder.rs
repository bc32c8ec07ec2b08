//! All files below a folder.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::natural::natural;
use crate::error::{Locate, Result};

/// Folders in folders that are looked into.
const DEEPEST: usize = 16;

/// A file below a folder.
#[derive(Debug, Clone)]
pub struct FoundFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the folder, with `/` between names.
    pub relative: String,
}

/// The files below a folder in natural order; hidden ones, and what lies behind links to folders, are left out.
///
/// # Errors
/// If the folder itself cannot be listed. What cannot be listed below it is left out.
pub fn files_below(folder: &Path) -> Result<Vec<FoundFile>> {
    let mut found = Vec::new();
    collect(folder, "", 0, &mut found).in_file(folder)?;
    found.sort_by(|a, b| natural(&a.relative, &b.relative));
    Ok(found)
}

fn collect(
    folder: &Path,
    above: &str,
    depth: usize,
    found: &mut Vec<FoundFile>,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') {
            continue;
        }
        let relative = format!("{above}{name}");
        if entry.file_type()?.is_dir() {
            if depth < DEEPEST {
                // One that may not be read hides what is in it, and no more.
                let _ = collect(&path, &format!("{relative}/"), depth + 1, found);
            }
        } else if path.is_file() {
            found.push(FoundFile { path, relative });
        }
    }
    Ok(())
}

/// Bytes of a file, or of all files below a folder; what cannot be asked has none.
pub fn size(path: &Path) -> u64 {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    match path.is_dir() {
        true => files_below(path).unwrap_or_default().iter().map(|file| length(&file.path)).sum(),
        false => length(path),
    }
}

/// Makes the folder that an output will stand in, where it is missing.
///
/// # Errors
/// Whatever the operating system says of making it.
pub fn make_parent(output: &Path) -> Result<()> {
    match output.parent() {
        Some(parent) => std::fs::create_dir_all(parent).in_file(parent),
        None => Ok(()),
    }
}

/// When a file was last written, in seconds since 1970; `None` where that is not known.
pub fn modified(path: &Path) -> Option<u64> {
    let time = std::fs::metadata(path).ok()?.modified().ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
