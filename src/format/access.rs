//! How input files are read: mapped into memory, or by positioned reads. The only `unsafe` of the
//! format layer is the mapping.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use memmap2::{Advice, Mmap};
use serde::{Deserialize, Serialize};

use super::remote::{Ranged, file_at};

/// How input files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// Where the bytes are, if the file only stands for one in a store.
    remote: Option<Arc<dyn Ranged>>,
}

/// Bytes of a file in a store that are copied at once.
const PIECE: u64 = 16 << 20;

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
        let remote = file_at(path);
        let map = match access {
            Access::Map if length > 0 && remote.is_none() => Some(Arc::new(map(&file)?)),
            _ => None,
        };
        if let Some(map) = &map {
            // Only advice: where it is not understood, reading works all the same.
            #[cfg(unix)]
            let _ = map.advise(Advice::Sequential);
        }
        let file = Arc::new(file);
        Ok(Self { file, length, modified: metadata.modified().ok(), map, held: None, remote })
    }

    /// The same file, of which these bytes were made: they are what is read from now on.
    #[must_use]
    pub fn holding(self, bytes: Vec<u8>) -> Self {
        Self { map: None, remote: None, held: Some(Arc::new(bytes)), ..self }
    }

    /// Whether what is read is what the file holds, and not [`Source::holding`]'s bytes.
    pub fn is_of_file(&self) -> bool {
        self.held.is_none()
    }

    /// Bytes in the file when it was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether its bytes lie in memory, so that asking for many costs no more than for few.
    pub fn in_memory(&self) -> bool {
        self.map.is_some() || self.held.is_some()
    }

    /// The open file, for what the operating system knows of it; of one in a store, what stands for it.
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
        match &self.remote {
            Some(remote) => remote.read(range.start, scratch)?,
            None => read_exact_at(&self.file, scratch, range.start)?,
        }
        Ok(scratch)
    }

    /// Copies bytes to where a file stands, inside the kernel where it can (`copy_file_range`); how many there were.
    ///
    /// # Errors
    /// Whatever reading and writing says.
    pub fn copy_to(&self, range: Range<u64>, out: &mut File) -> io::Result<u64> {
        if self.remote.is_none() {
            let mut input = &*self.file;
            input.seek(SeekFrom::Start(range.start))?;
            return io::copy(&mut input.take(range.end.saturating_sub(range.start)), out);
        }
        self.each_piece(range, |bytes| out.write_all(bytes))
    }

    fn each_piece(
        &self,
        range: Range<u64>,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        let (mut at, mut scratch) = (range.start, Vec::new());
        while at < range.end {
            let end = range.end.min(at + PIECE);
            take(self.bytes(at..end, &mut scratch)?)?;
            at = end;
        }
        Ok(at - range.start)
    }

    /// Whether the file still has the length and modification time it was opened with, or is the same in its store.
    ///
    /// # Errors
    /// Whatever the operating system says of asking.
    pub fn unchanged(&self) -> io::Result<bool> {
        if let Some(remote) = &self.remote {
            return remote.unchanged();
        }
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

/// Longest small file that is read whole: an index, a side file of a receipt.
const LONGEST_TEXT: u64 = 64 << 20;
/// Longest config: real ones have some kB, and every value of a parsed one takes far more than its text.
const LONGEST_CONFIG: u64 = 4 << 20;

/// An index or another small file, whole.
///
/// # Errors
/// If it is no regular file or longer than any such file is; whatever reading says.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(path, LONGEST_TEXT)
}

/// A config, whole.
///
/// # Errors
/// As [`read_small`].
pub fn read_config(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(path, LONGEST_CONFIG)
}

/// A config that need not be there; `None` only if there is no such file. A config that cannot be read
/// is not the same as none: what it would have said is unknown.
///
/// # Errors
/// As [`read_config`], but for a missing file.
pub fn read_config_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read_config(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_link(path) => Ok(None),
        read => read.map(Some),
    }
}

/// The first `limit` bytes of a file as text; `None` where there is no file that can be read.
pub fn head_of(path: &Path, limit: u64) -> Option<String> {
    let source = Source::open(path, Access::Read).ok()?;
    let mut bytes = Vec::new();
    let head = source.bytes(0..source.length().min(limit), &mut bytes).ok()?;
    Some(String::from_utf8_lossy(head).into_owned())
}

/// A regular file of at most `limit` bytes, whole. The one place where the library reads a file at once.
///
/// # Errors
/// If it is no regular file or longer than `limit`; whatever reading says.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let too_long = |length: u64| {
        let reason = format!("it has {length} bytes, more than the {limit} such a file may have");
        io::Error::new(io::ErrorKind::InvalidData, reason)
    };
    let length = check_regular(path)?.len();
    if length > limit {
        return Err(too_long(length));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // The length is a claim: files of /proc say 0, and others may be appended to.
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_long(bytes.len() as u64));
    }
    Ok(bytes)
}

/// The first `count` bytes of a regular file, or all if it is shorter.
///
/// # Errors
/// If it is no regular file; whatever reading says.
pub fn read_start(path: &Path, count: u64) -> io::Result<Vec<u8>> {
    check_regular(path)?;
    let mut bytes = Vec::new();
    File::open(path)?.take(count).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether the name itself is a symbolic link, which may lead to nothing.
fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink())
}

/// Has every thread that reads lost bytes of a mapping (SIGBUS) stand still for ever, after a byte was
/// written to `notify`, whose reader then ends the program. The lost bytes are read by nobody.
///
/// std's own handler, which takes the signal for an overflow of the stack, and one that is chained to it
/// would both let the process die at once. This one replaces it, and calls nothing but `write` and
/// `pause`, which are safe in a handler (POSIX, "async-signal-safe").
///
/// # Errors
/// Whatever the operating system says of installing it.
#[cfg(all(unix, feature = "cli"))]
#[allow(
    unsafe_code,
    reason = "only a handler of our own survives a signal that the next instruction raises"
)]
pub fn stop_at_lost_bytes(notify: std::os::fd::OwnedFd) -> io::Result<()> {
    use std::os::fd::IntoRawFd;
    use std::sync::atomic::{AtomicI32, Ordering};

    static NOTIFY: AtomicI32 = AtomicI32::new(-1);

    extern "C" fn stop(_: libc::c_int) {
        let byte = 1u8;
        // SAFETY: both functions may be called in a handler; the buffer is one byte, and alive. The
        // thread never leaves the loop, so no state that it was in the middle of is seen again by it.
        unsafe {
            libc::write(NOTIFY.load(Ordering::Relaxed), (&raw const byte).cast(), 1);
            loop {
                libc::pause();
            }
        }
    }

    NOTIFY.store(notify.into_raw_fd(), Ordering::Relaxed);
    let handler: extern "C" fn(libc::c_int) = stop;
    // SAFETY: a zeroed `sigaction` is a valid one with an empty mask; the handler has the signature that
    // a call without SA_SIGINFO asks for, and lives as long as the program.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
