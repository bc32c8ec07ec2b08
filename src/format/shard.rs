//! One file of a checkpoint: its header, and where the bytes of its tensors come from.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::access::{Access, Source};
use super::gguf::{self, is_gguf};
use super::header::{Header, header_length};
use crate::error::{Error, ErrorKind, FileKind, HeaderError, Locate, Result};

/// File endings of pickled weights, which are never opened.
pub const PICKLES: [&str; 4] = ["bin", "pt", "ckpt", "pth"];

/// A tensor whose bytes are stored nowhere: they are made of others when they are asked for.
pub trait Computed: std::fmt::Debug + Send + Sync {
    /// Puts the bytes of `range` into `out`, whatever it held.
    ///
    /// # Errors
    /// If what they are made of cannot be read, or is not what it should be.
    fn bytes(&self, range: Range<u64>, out: &mut Vec<u8>) -> Result<()>;

    /// Rows (of the last dimension's length) that are computed together: a range that cuts them computes them again.
    fn grain(&self) -> usize {
        1
    }

    /// Whether all of it has to be looked at before any is computed.
    fn prepares(&self) -> bool {
        false
    }

    /// Looks at all of it, on the current pool's threads, for those who compute it next; otherwise the first who asks
    /// for bytes does.
    ///
    /// # Errors
    /// As [`Computed::bytes`].
    fn prepare(&self) -> Result<()> {
        Ok(())
    }
}

/// Tensors whose bytes are computed, by name.
pub type ComputedTensors = BTreeMap<String, Arc<dyn Computed>>;

/// One safetensors file of a checkpoint.
#[derive(Debug)]
pub struct Shard {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the checkpoint, as an output repeats it (`unet/model.safetensors`).
    pub relative: String,
    /// Its header.
    pub header: Header,
    /// Its bytes.
    pub source: Source,
    /// Tensors whose bytes are computed when they are asked for, by name.
    pub computed: ComputedTensors,
}

impl Shard {
    /// Opens one file and checks its header.
    ///
    /// # Errors
    /// If the file cannot be read or its header breaks a rule of the format.
    pub fn open(path: &Path, relative: String, access: Access) -> Result<Self> {
        refuse_pickle(path)?;
        let source = Source::open(path, access).map_err(not_found).in_file(path)?;
        let header = match is_gguf(&source) {
            true => gguf::header(&source),
            false => read_header(&source).map_err(|error| recognised(error, &source)),
        };
        Ok(Self::new(path, relative, header.in_file(path)?, source))
    }

    /// A file whose header was read.
    pub fn new(path: &Path, relative: String, header: Header, source: Source) -> Self {
        let computed = BTreeMap::new();
        Self { path: path.to_path_buf(), relative, header, source, computed }
    }
}

/// Of a file that is no safetensors file but known by how it begins, what it is.
fn recognised(error: Error, source: &Source) -> Error {
    let header = matches!(
        error.kind(),
        ErrorKind::Header(
            HeaderError::TruncatedHeader { .. }
                | HeaderError::HeaderTooLarge { .. }
                | HeaderError::BadHeader { .. }
        )
    );
    let mut scratch = Vec::new();
    let start =
        source.bytes(0..source.length().min(FileKind::START), &mut scratch).unwrap_or_default();
    match FileKind::of(start).filter(|_| header) {
        Some(kind) => HeaderError::OtherFormat { kind }.into(),
        None => error,
    }
}

fn read_header(source: &Source) -> Result<Header> {
    let mut scratch = Vec::new();
    let length = source.length();
    let mut first = [0; 8];
    if length < 8 {
        return Err(HeaderError::TruncatedHeader { needed: 8, found: length }.into());
    }
    first.copy_from_slice(source.bytes(0..8, &mut scratch)?);
    let end = header_length(first, length)?;
    Header::parse(source.bytes(8..end, &mut scratch)?, length)
}

/// Whether the file's name ends as pickled weights do.
pub fn is_pickle(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| PICKLES.iter().any(|pickle| end.eq_ignore_ascii_case(pickle)))
}

fn refuse_pickle(path: &Path) -> Result<()> {
    if is_pickle(path) && path.exists() {
        return Err(ErrorKind::Pickle).in_file(path);
    }
    Ok(())
}

/// Of a file whose length fitted its header, an early end means that it was cut since.
pub(crate) fn shrunk(error: std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => ErrorKind::Changed,
        _ => ErrorKind::Io(error),
    }
}

pub(crate) fn not_found(error: std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Io(error),
    }
}
