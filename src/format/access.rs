//! How input files are read: mapped into memory, or by positioned reads. The only `unsafe` of the
//! format layer is the mapping.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use memmap2::{Advice, Mmap};

/// How input files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Mapped: the fastest on a local disk. A file that shrinks is an error, but
    /// one that does so in the moment it is read ends the process.
    #[default]
    Map,
    /// Positioned reads into a buffer: for network file systems, and where others may write.
    Read,
}

/// One open input file. Clones share the file and its mapping.
#[derive(Debug, Clone)]
pub struct Source {
    file: Arc<File>,
    length: u64,
    modified: Option<SystemTime>,
    map: Option<Arc<Mmap>>,
    held: Option<Arc<Vec<u8>>>,
}

impl Source {
    /// Opens `path` for reading; nothing is read yet.
    ///
    /// # Errors
    /// Whatever the operating system says of opening, and of mapping.
    pub fn open(path: &Path, access: Access) -> io::Result<Self> {
        check_regular(path)?;
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let length = metadata.len();
        let map = match access {
            Access::Map if length > 0 => Some(Arc::new(map(&file)?)),
            _ => None,
        };
        if let Some(map) = &map {
            // Only advice: where it is not understood, reading works all the same.
            #[cfg(unix)]
            let _ = map.advise(Advice::Sequential);
        }
        let file = Arc::new(file);
        Ok(Self { file, length, modified: metadata.modified().ok(), map, held: None })
    }

    /// The same file, of which these bytes were made: they are what is read from now on.
    #[must_use]
    pub fn holding(self, bytes: Vec<u8>) -> Self {
        Self { map: None, held: Some(Arc::new(bytes)), ..self }
    }

    /// Bytes in the file when it was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether its bytes lie in memory, so that asking for many costs no more than for few.
    pub fn in_memory(&self) -> bool {
        self.map.is_some() || self.held.is_some()
    }

    /// The open file, for copies that stay in the kernel.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The bytes of `range`: a slice of the mapping, or of `scratch` after a read.
    ///
    /// Before a mapping is touched the file is asked whether it is still as long: only one that
    /// shrinks in the very moment of reading ends the process.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before `range` does; whatever reading says.
    pub fn bytes<'a>(
        &'a self,
        range: Range<u64>,
        scratch: &'a mut Vec<u8>,
    ) -> io::Result<&'a [u8]> {
        let held = self.held.as_ref().map(|bytes| bytes.as_slice());
        let memory = held.or(self.map.as_ref().map(|map| &map[..]));
        let length = self.held.as_ref().map_or(self.length, |bytes| bytes.len() as u64);
        if range.end < range.start || range.end > length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(memory) = memory {
            if self.held.is_none() && self.file.metadata()?.len() < range.end {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return memory
                .get(range.start as usize..range.end as usize)
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
        scratch.resize((range.end - range.start) as usize, 0);
        read_exact_at(&self.file, scratch, range.start)?;
        Ok(scratch)
    }

    /// Whether the file still has the length and modification time it was opened with.
    ///
    /// # Errors
    /// Whatever the operating system says of asking.
    pub fn unchanged(&self) -> io::Result<bool> {
        let now = self.file.metadata()?;
        Ok(now.len() == self.length && now.modified().ok() == self.modified)
    }
}

/// Fails unless `path` is an ordinary file: opening a pipe waits for a writer, a device may never end.
fn check_regular(path: &Path) -> io::Result<std::fs::Metadata> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    if !metadata.is_file() {
        let reason = "it is no regular file (a pipe, a socket or a device)";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    Ok(metadata)
}

/// Longest text that is read whole.
const LONGEST_TEXT: u64 = 100_000_000;

/// A config, an index or another small file, whole.
///
/// # Errors
/// If it is no regular file or longer than any such file is; whatever reading says.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let length = check_regular(path)?.len();
    if length > LONGEST_TEXT {
        let reason = format!("it has {length} bytes, more than the {LONGEST_TEXT} it may have");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    std::fs::read(path)
}

#[allow(unsafe_code, reason = "mapping a file needs a promise about other processes")]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is private to readers and never written by us. That no other process
    // truncates or rewrites the file meanwhile cannot be enforced; every operation re-checks length
    // and modification time before it commits an output, and `Access::Read` exists for those who
    // cannot promise it.
    unsafe { Mmap::map(file) }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[count..];
        offset += count as u64;
    }
    Ok(())
}
