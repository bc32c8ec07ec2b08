//! SHA-256 of files and bytes, in hexadecimal.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::Access;
use super::access::Source;
use crate::error::{Locate, Result};

/// Bytes that are read at a time.
const PIECE: u64 = 1 << 20;

/// A hash in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    /// Takes the next bytes in.
    pub(crate) fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes);
    }

    /// The hash of all that was taken in.
    pub(crate) fn finish(self) -> String {
        format!("{:x}", self.0.finalize())
    }
}

/// The hash of some bytes.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// The hash of a whole file.
///
/// # Errors
/// If it is no regular file, or reading fails.
pub fn of_file(path: &Path) -> Result<String> {
    of_file_in_pieces(path, |_| Ok(()))
}

/// The hash of a whole file, its bytes given away piece by piece.
///
/// # Errors
/// As [`of_file`], and those of `take`.
pub(crate) fn of_file_in_pieces(
    path: &Path,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<String> {
    let source = Source::open(path, Access::Read).in_file(path)?;
    let (mut hash, mut scratch, mut at) = (Hasher::default(), Vec::new(), 0);
    while at < source.length() {
        let end = source.length().min(at + PIECE);
        let piece = source.bytes(at..end, &mut scratch).in_file(path)?;
        hash.update(piece);
        take(piece)?;
        at = end;
    }
    Ok(hash.finish())
}
