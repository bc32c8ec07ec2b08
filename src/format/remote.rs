//! Files that lie elsewhere and stand in the local file system under a name: inputs whose bytes come in ranges when
//! they are asked for, and outputs that are sent away when they are complete.
//!
//! Whoever opens [`Source`](super::Source)s and [`Staging`](super::Staging)s knows local paths only. An input in a store
//! is a mirror: a directory whose small files are there, and whose weight files have their length and no bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::live::Live;
#[cfg(feature = "cloud")]
use super::live::still;
use crate::error::Result;

/// A file of which ranges can be had.
pub trait Ranged: Debug + Send + Sync {
    /// Fills `into` with the bytes from `start` on.
    ///
    /// # Errors
    /// What the store says; that the file is no longer the one that was opened.
    fn read(&self, start: u64, into: &mut [u8]) -> io::Result<()>;

    /// Whether the store still holds the file that was opened.
    ///
    /// # Errors
    /// What the store says.
    fn unchanged(&self) -> io::Result<bool>;
}

/// Where a complete output goes.
pub trait Sink: Debug + Send + Sync {
    /// Where its files wait while several machines make it.
    fn depot(&self) -> Arc<dyn Depot>;

    /// Fails if something is there, unless it may be replaced.
    ///
    /// # Errors
    /// That it is there; what the store says.
    fn check_free(&self, force: bool) -> Result<()>;

    /// Sends a file or a directory; what others read last appears last.
    ///
    /// # Errors
    /// What the store says. Nothing of it is to be seen before all parts have come; what a store that fails after that
    /// has shown is removed again, unless it replaces an output: then files of it may stay, without the index.
    fn send(&self, local: &Path, force: bool) -> Result<()>;
}

/// Where the files of an output in a store wait, beside it, while several machines make it. Names are paths below that
/// place.
pub trait Depot: Debug + Send + Sync {
    /// What a user would write for it.
    fn location(&self) -> String;

    /// Sends a file, over one of this name.
    ///
    /// # Errors
    /// What the store says.
    fn send(&self, name: &str, local: &Path) -> Result<()>;

    /// Writes a short text, if nothing has this name yet.
    ///
    /// # Errors
    /// What the store says.
    fn claim(&self, name: &str, text: &[u8]) -> Result<()>;

    /// The bytes under a name, of small files.
    ///
    /// # Errors
    /// What the store says.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// What changes when the bytes under a name change.
    ///
    /// # Errors
    /// What the store says.
    fn state(&self, name: &str) -> Result<Option<String>>;

    /// All names below one, as paths below it; the name itself is an empty one.
    ///
    /// # Errors
    /// What the store says.
    fn names(&self, below: &str) -> Result<Vec<String>>;

    /// Copies what has a name, or lies below it, to the output, the file by which others find the rest last, and that
    /// only if nothing is there (unless `force`).
    ///
    /// # Errors
    /// That something is there; what the store says. Of an output that could not be completed nothing stays, unless it
    /// replaces another.
    fn show(&self, below: &str, force: bool) -> Result<()>;

    /// Removes what lies below a name.
    ///
    /// # Errors
    /// What the store says.
    fn remove(&self, below: &str) -> Result<()>;
}

/// All that this process has opened.
struct Known {
    files: BTreeMap<PathBuf, Arc<dyn Ranged>>,
    outputs: BTreeMap<PathBuf, Arc<dyn Sink>>,
    /// Local path → what the user wrote.
    names: Vec<(String, String)>,
    /// Directories that go when the process ends.
    mirrors: Vec<(tempfile::TempDir, Live)>,
}

static KNOWN: RwLock<Known> = RwLock::new(Known {
    files: BTreeMap::new(),
    outputs: BTreeMap::new(),
    names: Vec::new(),
    mirrors: Vec::new(),
});

fn known<T>(ask: impl FnOnce(&Known) -> T) -> T {
    ask(&KNOWN.read().unwrap_or_else(PoisonError::into_inner))
}

fn know<T>(add: impl FnOnce(&mut Known) -> T) -> T {
    add(&mut KNOWN.write().unwrap_or_else(PoisonError::into_inner))
}

/// The file in a store that this path stands for.
pub(super) fn file_at(path: &Path) -> Option<Arc<dyn Ranged>> {
    known(|known| known.files.get(path).cloned())
}

/// Where the output at this path goes.
pub(super) fn sink_of(path: &Path) -> Option<Arc<dyn Sink>> {
    known(|known| known.outputs.get(path).cloned())
}

/// A text with what the user wrote in place of the mirrors' paths.
pub fn as_written(text: &str) -> Cow<'_, str> {
    known(|known| {
        let mut text = Cow::Borrowed(text);
        for (local, written) in known.names.iter().rev() {
            if text.contains(local) {
                text = Cow::Owned(text.replace(local, written));
            }
        }
        text
    })
}

/// What the user wrote for the place in a store that a path stands for, or lies below.
pub(crate) fn written(path: &Path) -> Option<String> {
    known(|known| {
        let mut names = known.names.iter().rev();
        names.find(|(local, _)| path.starts_with(local)).map(|(_, written)| written.clone())
    })
}

/// Removes all mirrors, for a process that ends.
pub fn release() {
    let mirrors = know(|known| {
        known.files.clear();
        std::mem::take(&mut known.mirrors)
    });
    for (directory, live) in mirrors {
        drop(directory);
        drop(live);
    }
}

/// A new directory for what stands for a location, which goes when the process ends.
///
/// # Errors
/// Whatever the operating system says of creating it.
#[cfg(feature = "cloud")]
pub(super) fn mirror(location: &str, name: &str) -> io::Result<PathBuf> {
    let mut still = still();
    let directory = tempfile::Builder::new().prefix("lora-tool-remote-").tempdir()?;
    let live = Live::new(directory.path(), &mut still);
    drop(still);
    let path = directory.path().join(name);
    know(|known| {
        known.names.push((path.display().to_string(), location.trim_end_matches('/').to_owned()));
        known.mirrors.push((directory, live));
    });
    Ok(path)
}

/// Lets a path stand for a file in a store.
#[cfg(feature = "cloud")]
pub(super) fn stands_for(path: PathBuf, file: Arc<dyn Ranged>) {
    know(|known| known.files.insert(path, file));
}

/// Lets the output at a path go to a store.
#[cfg(feature = "cloud")]
pub(super) fn goes_to(path: PathBuf, sink: Arc<dyn Sink>) {
    know(|known| known.outputs.insert(path, sink));
}
