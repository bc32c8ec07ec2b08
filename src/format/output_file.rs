//! One file of an output, written at positions.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::PathBuf;

use super::access::Source;
use crate::error::{ErrorKind, Locate, Result};

/// One file of an output, written at positions.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    path: PathBuf,
}

impl OutputFile {
    /// An open file, called `path` in errors.
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        Self { file, path }
    }

    /// Gives the file its final length before anything is written.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn set_length(&self, length: u64) -> Result<()> {
        self.file.set_len(length).in_file(&self.path)
    }

    /// Takes all permissions from the group, and from others, where they may not read one of the inputs:
    /// what is made of a private file is private.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn no_wider_than<'s>(&self, inputs: impl Iterator<Item = &'s Source>) -> Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |file: &File| file.metadata().map(|data| data.permissions().mode());
            let before = mode(&self.file).in_file(&self.path)?;
            let mut narrow = before;
            for input in inputs {
                let input = mode(input.file()).in_file(&self.path)?;
                for (reads, all) in [(0o040, 0o070), (0o004, 0o007)] {
                    narrow &= if input & reads == 0 { !all } else { !0 };
                }
            }
            if narrow != before {
                let permissions = fs::Permissions::from_mode(narrow);
                self.file.set_permissions(permissions).in_file(&self.path)?;
            }
        }
        #[cfg(not(unix))]
        let _ = inputs;
        Ok(())
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
    /// Whatever the operating system says; [`ErrorKind::Changed`], without a file, if the input ends
    /// early.
    pub fn copy_from(&mut self, source: &Source, from: u64, to: u64, bytes: u64) -> Result<()> {
        self.file.seek(SeekFrom::Start(to)).in_file(&self.path)?;
        let copied = source.copy_to(from..from + bytes, &mut self.file).in_file(&self.path)?;
        if copied != bytes {
            return Err(ErrorKind::Changed.into());
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
    io::Write::write_all(file, bytes)
}
