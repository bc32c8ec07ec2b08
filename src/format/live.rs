//! Temporaries of outputs being built, so that a program that is told to stop can take them along.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static LIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

static COMMITTED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Outputs that this process has put in place, in order.
pub fn committed() -> Vec<PathBuf> {
    COMMITTED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Notes that an output is in place.
pub(super) fn is_committed(target: &Path) {
    COMMITTED.lock().unwrap_or_else(PoisonError::into_inner).push(target.to_path_buf());
}

/// While this is held no temporary appears, moves to its target, or is removed by anyone else.
pub(super) type Still = MutexGuard<'static, BTreeSet<PathBuf>>;

/// Waits until temporaries stand still.
pub(super) fn still() -> Still {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary's place in the list, until this is dropped.
#[derive(Debug)]
pub(super) struct Live {
    /// Empty for what shall stay.
    path: PathBuf,
    /// Locked, which says to other processes that somebody is at work on it.
    lock: Option<File>,
}

impl Live {
    /// Of an output that outlives an interrupted run.
    pub(super) fn none() -> Self {
        Self { path: PathBuf::new(), lock: None }
    }

    pub(super) fn new(path: &Path, still: &mut Still) -> Self {
        // A later change of the working directory must not move it.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        still.insert(path.clone());
        Self { path, lock: None }
    }

    /// As [`Live::new`], and locked. `None` if another process has taken it for left over and removes it.
    pub(super) fn claim(path: &Path, still: &mut Still) -> Option<Self> {
        // Elsewhere a lock would keep this process too from writing; nor can everything be opened or locked
        // everywhere. Others cannot tell then.
        let file = if cfg!(unix) { File::open(path).ok() } else { None };
        let lock = match file.as_ref().map(File::try_lock) {
            Some(Ok(())) => file,
            Some(Err(TryLockError::WouldBlock)) => return None,
            Some(Err(TryLockError::Error(_))) | None => None,
        };
        // What was removed before it was locked is nobody's any more.
        path.symlink_metadata().ok()?;
        let mut live = Self::new(path, still);
        live.lock = lock;
        Some(live)
    }

    /// Takes it off the list, by whoever holds the list already.
    pub(super) fn end(mut self, still: &mut Still) {
        still.remove(&self.path);
        // Dropping it would wait for the list, which the caller holds.
        drop(std::mem::take(&mut self.path));
        drop(self.lock.take());
        std::mem::forget(self);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        still().remove(&self.path);
    }
}

/// Removes every temporary, and lets none appear again: whoever builds an output waits for ever.
///
/// For a program that ends at once, wherever its threads are. Outputs that have reached their target
/// stay; those that have not never will.
pub fn abandon() {
    let live = still();
    for path in live.iter() {
        let is_directory = path.symlink_metadata().is_ok_and(|data| data.is_dir());
        // There is nobody left to tell of a failure, and the rest still has to go.
        let _ = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    std::mem::forget(live);
}
