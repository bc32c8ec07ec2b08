//! Outputs that are complete or absent: built in a temporary beside the target, synced, renamed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

use super::access::{Access, Source, read_small};
use super::kept::{Kept, PARTIAL, beside, retain};
pub use super::kept::{kept_root, remove_any};
use super::live::{Live, Still, is_committed, still};
use super::output_file::OutputFile;
use super::remote::sink_of;
use crate::error::{CloudError, ErrorKind, Locate, LocationError, Result};

/// An output being built; nothing stands at the target until [`Staging::commit`].
#[derive(Debug)]
pub struct Staging {
    target: PathBuf,
    force: bool,
    place: Place,
    // Dropped after `place`, which removes the temporary.
    live: Live,
}

#[derive(Debug)]
enum Place {
    File(NamedTempFile),
    Directory(TempDir),
    Kept(Kept),
}

impl Staging {
    /// Starts an output that will be one file.
    ///
    /// # Errors
    /// If the target exists without `force`, or its directory cannot be written.
    pub fn file(target: &Path, force: bool) -> Result<Self> {
        check_target(target, force)?;
        let mut still = still();
        let make = || builder(&prefix(target), 0o666).tempfile_in(parent_of(target));
        let (place, live) = begun(make, NamedTempFile::path, &mut still).in_file(target)?;
        Ok(Self { target: target.to_path_buf(), force, place: Place::File(place), live })
    }

    /// Starts an output that will be a directory.
    ///
    /// # Errors
    /// If the target exists without `force`, or its parent cannot be written.
    pub fn directory(target: &Path, force: bool) -> Result<Self> {
        check_target(target, force)?;
        let mut still = still();
        let make = || builder(&prefix(target), 0o777).tempdir_in(parent_of(target));
        let (place, live) = begun(make, TempDir::path, &mut still).in_file(target)?;
        Ok(Self { target: target.to_path_buf(), force, place: Place::Directory(place), live })
    }

    /// Starts, or takes up again, an output directory whose finished files outlive an interrupted run. What was kept
    /// under another `key` is removed.
    ///
    /// # Errors
    /// As [`Staging::directory`], and [`ErrorKind::OutputBusy`] while another run builds it.
    pub fn kept(target: &Path, force: bool, key: &str) -> Result<Self> {
        check_target(target, force)?;
        let kept = Kept::open(kept_root(target), key)?;
        let live = Live::none();
        Ok(Self { target: target.to_path_buf(), force, place: Place::Kept(kept), live })
    }

    /// Where a file of a kept output lies until the commit.
    pub fn kept_file(&self, relative: &str) -> Option<PathBuf> {
        match &self.place {
            Place::Kept(kept) => Some(kept.root.join("out").join(relative)),
            _ => None,
        }
    }

    /// Keeps a note beside a kept output; of others, nothing.
    ///
    /// # Errors
    /// Whatever the operating system says of writing it.
    pub fn note(&self, name: &str, text: &[u8]) -> Result<()> {
        let Place::Kept(kept) = &self.place else { return Ok(()) };
        let path = kept.root.join(name);
        let _still = still();
        fs::write(&path, text).in_file(&path)
    }

    /// Removes what lies in a kept output and is none of these files: it would go out with them.
    ///
    /// # Errors
    /// Whatever the operating system says of listing and removing.
    pub fn retain(&self, files: &BTreeSet<&str>) -> Result<()> {
        let Place::Kept(kept) = &self.place else { return Ok(()) };
        let (_still, out) = (still(), kept.root.join("out"));
        retain(&out, "", files).in_file(&out)
    }

    /// A note that this run or an earlier one kept.
    pub fn recall(&self, name: &str) -> Option<Vec<u8>> {
        let Place::Kept(kept) = &self.place else { return None };
        read_small(&kept.root.join(name)).ok()
    }

    /// Opens a file of the output: `relative` below a directory, or the one file itself.
    ///
    /// # Errors
    /// Whatever the operating system says of creating it.
    pub fn create(&self, relative: &str) -> Result<OutputFile> {
        let target = self.path_of(relative);
        let file = match &self.place {
            Place::File(temporary) => temporary.as_file().try_clone().in_file(&target)?,
            Place::Directory(directory) => {
                create_new(&directory.path().join(relative)).in_file(&target)?
            }
            Place::Kept(kept) => {
                let path = kept.root.join("out").join(relative);
                if path.symlink_metadata().is_ok() {
                    remove_any(&path).in_file(&path)?;
                }
                create_new(&path).in_file(&target)?
            }
        };
        Ok(OutputFile::new(file, target))
    }

    /// Writes a small file of the output at once.
    ///
    /// # Errors
    /// Whatever the operating system says of writing it.
    pub fn write(&self, relative: &str, bytes: &[u8]) -> Result<()> {
        let mut output = self.create(relative)?;
        output.write_at(bytes, 0)?;
        output.finish()
    }

    /// Copies a regular file into the output, in pieces.
    ///
    /// # Errors
    /// If `source` is no regular file; whatever the operating system says of reading and writing.
    pub fn copy(&self, source: &Path, relative: &str) -> Result<()> {
        let from = Source::open(source, Access::Read).in_file(source)?;
        let mut output = self.create(relative)?;
        // The length is fixed here: a file that grows for ever is not followed.
        output.copy_from(&from, 0, 0, from.length())?;
        output.finish()
    }

    /// Where the output is being built, to be read before it is committed.
    pub fn place(&self) -> &Path {
        match &self.place {
            Place::File(temporary) => temporary.path(),
            Place::Directory(directory) => directory.path(),
            Place::Kept(kept) => &kept.root,
        }
    }

    /// The file or directory that will be put in place, to be read before it is.
    pub fn content(&self) -> PathBuf {
        match &self.place {
            Place::File(temporary) => temporary.path().to_path_buf(),
            Place::Directory(directory) => directory.path().to_path_buf(),
            Place::Kept(kept) => kept.root.join("out"),
        }
    }

    /// Puts the output at its target, in one step, and sends it to the store it is for, if any.
    ///
    /// # Errors
    /// If the target has appeared meanwhile (without `force`), or the rename fails; what the store says.
    pub fn commit(self) -> Result<()> {
        let Self { target, force, place, live } = self;
        match &place {
            Place::File(_) => {}
            Place::Directory(directory) => sync_directories(directory.path()).in_file(&target)?,
            Place::Kept(kept) => sync_directories(&kept.root.join("out")).in_file(&target)?,
        }
        let mut still = still();
        match place {
            Place::File(temporary) => {
                let persisted = if force {
                    temporary.persist(&target)
                } else {
                    temporary.persist_noclobber(&target)
                };
                persisted.map_err(|error| exists(error.error)).in_file(&target)?;
            }
            Place::Directory(directory) => {
                commit_directory(directory.path(), &target, force)?;
                let _renamed = directory.keep();
            }
            Place::Kept(kept) => {
                commit_directory(&kept.root.join("out"), &target, force)?;
                fs::remove_dir_all(&kept.root).in_file(&kept.root)?;
            }
        }
        live.end(&mut still);
        drop(still);
        if let Some(sink) = sink_of(&target) {
            sink.send(&target, force)?;
        }
        is_committed(&target);
        sync_directory(parent_of(&target)).in_file(&target)
    }

    fn path_of(&self, relative: &str) -> PathBuf {
        match self.place {
            Place::File(_) => self.target.clone(),
            Place::Directory(_) | Place::Kept(_) => self.target.join(relative),
        }
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    let _still = still();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::options().write(true).create_new(true).open(path)
}

pub(super) fn parent_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Fails unless an output can be started at `target`.
///
/// # Errors
/// If it exists without `force`, here or in the store that it goes to, or there is no directory to put it in.
pub fn check_target(target: &Path, force: bool) -> Result<()> {
    if let Some(sink) = sink_of(target) {
        sink.check_free(force)?;
    }
    if !force && target.symlink_metadata().is_ok() {
        return Err(ErrorKind::OutputExists).in_file(target);
    }
    let parent = parent_of(target);
    if !parent.is_dir() {
        return Err(ErrorKind::NoParent { parent: parent.to_path_buf() }).in_file(target);
    }
    check_writable(parent).in_file(target)
}

/// Fails where a directory's disk or its mode keeps this user from writing.
#[cfg(unix)]
fn check_writable(directory: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// What keeps this user from writing is seen once it writes.
#[cfg(not(unix))]
fn check_writable(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether something stands where an output would, here or in the store that it goes to.
pub fn is_there(target: &Path) -> bool {
    match sink_of(target) {
        Some(sink) => sink.check_free(false).is_err_and(|error| {
            matches!(
                error.kind(),
                ErrorKind::Location(LocationError::Store(CloudError::Exists { .. }))
            )
        }),
        None => target.symlink_metadata().is_ok(),
    }
}

/// A new temporary that is this run's, on the list and locked. One that another process removes before it is locked
/// (it looks left over until then) is made anew.
fn begun<T>(
    make: impl Fn() -> io::Result<T>,
    path: fn(&T) -> &Path,
    still: &mut Still,
) -> io::Result<(T, Live)> {
    loop {
        let place = make()?;
        if let Some(live) = Live::claim(path(&place), still) {
            return Ok((place, live));
        }
    }
}

/// Temporaries are named after their target, so that one left by a killed process explains itself.
fn prefix(target: &Path) -> OsString {
    beside(target, PARTIAL)
}

pub(super) fn builder(prefix: &OsStr, mode: u32) -> Builder<'_, 'static> {
    let mut builder = Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The umask still applies.
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

fn exists(error: io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => ErrorKind::OutputExists,
        _ => ErrorKind::Io(error),
    }
}

#[cfg(target_os = "linux")]
pub(super) fn commit_directory(directory: &Path, target: &Path, force: bool) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let flags = match force && target.symlink_metadata().is_ok() {
        true => RenameFlags::EXCHANGE,
        false => RenameFlags::NOREPLACE,
    };
    match renameat_with(CWD, directory, CWD, target, flags) {
        // After an exchange the temporary name holds the old output, and is removed.
        Ok(()) if flags == RenameFlags::EXCHANGE => remove_any(directory).in_file(target),
        Ok(()) => Ok(()),
        Err(error) if error == rustix::io::Errno::INVAL || error == rustix::io::Errno::NOSYS => {
            commit_by_two_renames(directory, target, force)
        }
        Err(error) => Err(exists(error.into())).in_file(target),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn commit_directory(directory: &Path, target: &Path, force: bool) -> Result<()> {
    commit_by_two_renames(directory, target, force)
}

/// For file systems that cannot exchange: the old output steps aside first; the target is absent then, never partial.
fn commit_by_two_renames(directory: &Path, target: &Path, force: bool) -> Result<()> {
    let old = directory.with_extension("old");
    let replaced = target.symlink_metadata().is_ok();
    if replaced && !force {
        return Err(ErrorKind::OutputExists).in_file(target);
    }
    if replaced {
        fs::rename(target, &old).in_file(target)?;
    }
    if let Err(error) = fs::rename(directory, target) {
        if replaced {
            fs::rename(&old, target).in_file(target)?;
        }
        return Err(exists(error)).in_file(target);
    }
    if replaced { remove_any(&old).in_file(target) } else { Ok(()) }
}

pub(super) fn sync_directories(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    sync_directory(directory)
}

pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    // Windows cannot open a directory as a file; its renames are durable by themselves.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Bytes that may still be written to the file system that holds `path`, where it can be asked.
pub fn free_space(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let stats = rustix::fs::statvfs(parent_of(path)).ok()?;
        Some(stats.f_bavail.saturating_mul(stats.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}
