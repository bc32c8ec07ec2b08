//! Outputs that are complete or absent: built in a temporary beside the target, synced, renamed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

use super::access::Source;
use super::live::{Live, still};
use crate::error::{ErrorKind, Locate, Result};

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
}

impl Staging {
    /// Starts an output that will be one file.
    ///
    /// # Errors
    /// If the target exists without `force`, or its directory cannot be written.
    pub fn file(target: &Path, force: bool) -> Result<Self> {
        check_target(target, force)?;
        let mut still = still();
        let place =
            builder(&prefix(target), 0o666).tempfile_in(parent_of(target)).in_file(target)?;
        let live = Live::new(place.path(), &mut still);
        Ok(Self { target: target.to_path_buf(), force, place: Place::File(place), live })
    }

    /// Starts an output that will be a directory.
    ///
    /// # Errors
    /// If the target exists without `force`, or its parent cannot be written.
    pub fn directory(target: &Path, force: bool) -> Result<Self> {
        check_target(target, force)?;
        let mut still = still();
        let place =
            builder(&prefix(target), 0o777).tempdir_in(parent_of(target)).in_file(target)?;
        let live = Live::new(place.path(), &mut still);
        Ok(Self { target: target.to_path_buf(), force, place: Place::Directory(place), live })
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
                let path = directory.path().join(relative);
                let _still = still();
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).in_file(&target)?;
                }
                File::options().write(true).create_new(true).open(&path).in_file(&target)?
            }
        };
        Ok(OutputFile { file, path: target })
    }

    /// Writes a small file of the output at once.
    ///
    /// # Errors
    /// Whatever the operating system says of writing it.
    pub fn write(&self, relative: &str, bytes: &[u8]) -> Result<()> {
        let mut output = self.create(relative)?;
        output.file.write_all(bytes).in_file(&output.path)?;
        output.finish()
    }

    /// Puts the output at its target, in one step.
    ///
    /// # Errors
    /// If the target has appeared meanwhile (without `force`), or the rename fails.
    pub fn commit(self) -> Result<()> {
        let Self { target, force, place, live } = self;
        if let Place::Directory(directory) = &place {
            sync_directories(directory.path()).in_file(&target)?;
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
            Place::Directory(directory) => commit_directory(directory, &target, force)?,
        }
        live.end(&mut still);
        drop(still);
        sync_directory(parent_of(&target)).in_file(&target)
    }

    fn path_of(&self, relative: &str) -> PathBuf {
        match self.place {
            Place::File(_) => self.target.clone(),
            Place::Directory(_) => self.target.join(relative),
        }
    }
}

fn parent_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Fails unless an output can be started at `target`.
///
/// # Errors
/// If it exists without `force`, or there is no directory to put it in.
pub fn check_target(target: &Path, force: bool) -> Result<()> {
    if !force && target.symlink_metadata().is_ok() {
        return Err(ErrorKind::OutputExists).in_file(target);
    }
    let parent = parent_of(target);
    if !parent.is_dir() {
        let reason = format!("its directory {} does not exist", parent.display());
        return Err(ErrorKind::BadOption(reason)).in_file(target);
    }
    Ok(())
}

/// Temporaries are named after their target, so that one left by a killed process explains itself.
fn prefix(target: &Path) -> String {
    format!(".{}.partial-", target.file_name().unwrap_or_default().to_string_lossy())
}

fn builder(prefix: &str, mode: u32) -> Builder<'_, 'static> {
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
fn commit_directory(directory: TempDir, target: &Path, force: bool) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let flags = match force && target.symlink_metadata().is_ok() {
        true => RenameFlags::EXCHANGE,
        false => RenameFlags::NOREPLACE,
    };
    match renameat_with(CWD, directory.path(), CWD, target, flags) {
        // After an exchange the temporary name holds the old output, and is removed.
        Ok(()) if flags == RenameFlags::EXCHANGE => remove_any(directory.path()).in_file(target),
        Ok(()) => {
            let _renamed = directory.keep();
            Ok(())
        }
        Err(error) if error == rustix::io::Errno::INVAL || error == rustix::io::Errno::NOSYS => {
            commit_by_two_renames(directory, target, force)
        }
        Err(error) => Err(exists(error.into())).in_file(target),
    }
}

#[cfg(not(target_os = "linux"))]
fn commit_directory(directory: TempDir, target: &Path, force: bool) -> Result<()> {
    commit_by_two_renames(directory, target, force)
}

/// For file systems that cannot exchange: the old output steps aside first, so that the target is
/// absent for a moment, never partial.
fn commit_by_two_renames(directory: TempDir, target: &Path, force: bool) -> Result<()> {
    let old = directory.path().with_extension("old");
    let replaced = target.symlink_metadata().is_ok();
    if replaced && !force {
        return Err(ErrorKind::OutputExists).in_file(target);
    }
    if replaced {
        fs::rename(target, &old).in_file(target)?;
    }
    if let Err(error) = fs::rename(directory.path(), target) {
        if replaced {
            fs::rename(&old, target).in_file(target)?;
        }
        return Err(exists(error)).in_file(target);
    }
    let _renamed = directory.keep();
    if replaced { remove_any(&old).in_file(target) } else { Ok(()) }
}

fn remove_any(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn sync_directories(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    sync_directory(directory)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    // Windows cannot open a directory as a file; its renames are durable by themselves.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// One file of an output, written at positions.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    path: PathBuf,
}

impl OutputFile {
    /// Gives the file its final length before anything is written.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn set_length(&self, length: u64) -> Result<()> {
        self.file.set_len(length).in_file(&self.path)
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// Whatever the operating system says of writing.
    pub fn write_at(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        write_all_at(&mut self.file, bytes, offset).in_file(&self.path)
    }

    /// Copies bytes of an input, inside the kernel where it can (`copy_file_range`).
    ///
    /// # Errors
    /// Whatever the operating system says, and if the input ends early.
    pub fn copy_from(&mut self, source: &Source, from: u64, to: u64, bytes: u64) -> Result<()> {
        self.file.seek(SeekFrom::Start(to)).in_file(&self.path)?;
        let mut input = source.file();
        input.seek(SeekFrom::Start(from)).in_file(&self.path)?;
        let copied = io::copy(&mut input.take(bytes), &mut self.file).in_file(&self.path)?;
        if copied != bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).in_file(&self.path);
        }
        Ok(())
    }

    /// Waits until the file's bytes are on the disk.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().in_file(&self.path)
    }
}

#[cfg(unix)]
fn write_all_at(file: &mut File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn write_all_at(file: &mut File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
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
