//! Outputs whose finished files outlive an interrupted run.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::access::read_small;
use super::live::still;
use crate::error::{ErrorKind, Locate, Result};

/// A directory output whose temporary has one name from run to run: `out/` is what will be renamed,
/// beside it lie the notes of finished files, what they belong to, and a lock.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) root: PathBuf,
    // Held until the end; the system lets go of a killed process's.
    _lock: File,
}

impl Kept {
    const KEY: &str = "key";

    /// Opens it, alone; what was kept under another key is removed.
    pub(super) fn open(root: PathBuf, key: &str) -> Result<Self> {
        let _still = still();
        if !root.symlink_metadata().is_ok_and(|data| data.is_dir()) {
            fs::create_dir(&root).in_file(&root)?;
        }
        let path = root.join("lock");
        let lock = File::options().write(true).create(true).truncate(false).open(&path);
        let lock = lock.in_file(&path)?;
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(ErrorKind::OutputBusy).in_file(&root);
        }
        if read_small(&root.join(Self::KEY)).ok().as_deref() != Some(key.as_bytes()) {
            for entry in fs::read_dir(&root).in_file(&root)? {
                let old = entry.in_file(&root)?.path();
                if old != path {
                    remove_any(&old).in_file(&old)?;
                }
            }
            fs::write(root.join(Self::KEY), key).in_file(&root)?;
        }
        let out = root.join("out");
        if out.symlink_metadata().is_ok_and(|data| !data.is_dir()) {
            remove_any(&out).in_file(&out)?;
        }
        fs::create_dir_all(out).in_file(&root)?;
        Ok(Self { root, _lock: lock })
    }
}

/// The directory of an output that is kept when its run is interrupted.
pub fn kept_root(target: &Path) -> PathBuf {
    target.with_file_name(beside(target, ".resume"))
}

/// What stands between a temporary's target and its random end.
pub(super) const PARTIAL: &str = ".partial-";

/// `.NAME` and an ending, for something that lies beside a target. A name so long that nothing could be
/// added to it is cut, and told from its like by a hash.
pub(super) fn beside(target: &Path, ending: &str) -> OsString {
    // Names have at most 255 bytes; a temporary's has a few random ones more.
    const LONGEST: usize = 220;
    let name = target.file_name().unwrap_or_default();
    let mut beside = OsString::from(".");
    if name.len() <= LONGEST {
        beside.push(name);
    } else {
        let text = name.to_string_lossy();
        let start = text.chars().scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= LONGEST - 20).then_some(c)
        });
        let start = start.collect::<String>();
        // FNV-1a.
        let hash = name.as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        beside.push(format!("{start}-{hash:016x}"));
    }
    beside.push(ending);
    beside
}

/// Removes all below `directory` but these files, and the directories that they lie in.
pub(super) fn retain(directory: &Path, prefix: &str, files: &BTreeSet<&str>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Not of what a link leads to.
        let kind = entry.file_type()?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let below = format!("{name}/");
        if kind.is_dir() && files.iter().any(|file| file.starts_with(&below)) {
            retain(&entry.path(), &below, files)?;
        } else if !kind.is_file() || !files.contains(name.as_str()) {
            remove_any(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file, a link, or a directory with all that is in it.
///
/// # Errors
/// If there is none, or it cannot be removed.
pub fn remove_any(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}
