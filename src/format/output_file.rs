//! One file of an output, written at positions.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
#[cfg(target_os = "linux")]
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::PathBuf;

use super::access::Source;
use crate::error::{ErrorKind, Locate, Result};

/// One file of an output, written at positions.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    path: PathBuf,
    /// What was written last in one go, and the disk has not been told of.
    written: Range<u64>,
}

/// Bytes after which the disk begins to write what it was given, while the rest is computed: else the whole file waits
/// for the sync at its end.
const WRITE_BACK: u64 = 16 << 20;

impl OutputFile {
    /// An open file, called `path` in errors.
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        Self { file, path, written: 0..0 }
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
        write_all_at(&mut self.file, bytes, offset).in_file(&self.path)?;
        self.write_back(offset..offset + bytes.len() as u64);
        Ok(())
    }

    /// Lets the disk begin with what was written, once it is enough.
    fn write_back(&mut self, range: Range<u64>) {
        match range.start == self.written.end {
            true => self.written.end = range.end,
            false => self.written = range,
        }
        if self.written.end - self.written.start >= WRITE_BACK {
            begin_write_back(&self.file, self.written.clone());
            self.written.start = self.written.end;
        }
    }

    /// Copies bytes of an input, inside the kernel where it can (`copy_file_range`).
    ///
    /// # Errors
    /// Whatever the operating system says; [`ErrorKind::Changed`], without a file, if the input ends
    /// early.
    pub fn copy_from(&mut self, source: &Source, from: u64, to: u64, bytes: u64) -> Result<()> {
        self.file.seek(SeekFrom::Start(to)).in_file(&self.path)?;
        let mut done = 0;
        while done < bytes {
            let piece = (bytes - done).min(WRITE_BACK);
            let range = from + done..from + done + piece;
            let copied = source.copy_to(range, &mut self.file).in_file(&self.path)?;
            if copied != piece {
                return Err(ErrorKind::Changed.into());
            }
            self.write_back(to + done..to + done + piece);
            done += piece;
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

/// Asks the system to begin writing a part of a file to the disk; nothing waits, and nothing depends on it. That the
/// pages are not needed any more is what makes Linux begin (`posix_fadvise`, POSIX_FADV_DONTNEED): it drops only those
/// that are on the disk already.
#[cfg(target_os = "linux")]
fn begin_write_back(file: &File, range: Range<u64>) {
    use rustix::fs::{Advice, fadvise};
    let length = NonZeroU64::new(range.end - range.start);
    // Whoever cannot take advice writes at the sync.
    let _ = fadvise(file, range.start, length, Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn begin_write_back(_file: &File, _range: Range<u64>) {}

#[cfg(unix)]
fn write_all_at(file: &mut File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn write_all_at(file: &mut File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    io::Write::write_all(file, bytes)
}
