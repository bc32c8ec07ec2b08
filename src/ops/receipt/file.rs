//! A receipt on disk: a line that says what it is, the bytes, the contents as JSON, their length, and
//! the SHA-256 of contents and length. The bytes need no hash of their own: whatever is made of them is
//! held to the hash that the contents have of it.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::contents::{Contents, Span};
use crate::error::{ErrorKind, Locate, ReceiptError, Result};
use crate::format::{Access, OutputFile, Source};

const MAGIC: &[u8] = b"lora-tool receipt 2\n";
/// As receipts began that end without a hash. As long as [`MAGIC`], and more than one bit from it.
const UNSEALED: &[u8] = b"lora-tool receipt 1\n";
/// Bytes of a SHA-256.
const SEAL: u64 = 32;

/// An open receipt.
#[derive(Debug)]
pub(in crate::ops) struct Receipt {
    pub(in crate::ops) contents: Contents,
    /// Whether a hash of the contents stood in it, and was theirs.
    pub(in crate::ops) sealed: bool,
    source: Source,
    data: u64,
}

impl Receipt {
    /// Opens a receipt.
    ///
    /// # Errors
    /// If it cannot be read, is no receipt that this version reads, or its contents were changed.
    pub(in crate::ops) fn open(path: &Path, access: Access) -> Result<Self> {
        let source = Source::open(path, access).in_file(path)?;
        Self::read(source).map_err(|error| error.in_file(path))
    }

    fn read(source: Source) -> Result<Self> {
        let start = MAGIC.len() as u64;
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let none = |_| ReceiptError::NoReceipt("it does not begin as one".to_owned());
        let sealed = match source.bytes(0..start, &mut first).map_err(none)? {
            MAGIC => true,
            UNSEALED => false,
            _ => return Err(ReceiptError::NoReceipt("it does not begin as one".to_owned()).into()),
        };
        // The contents stand last, since only then all is known.
        let short = || ReceiptError::NoReceipt("it is cut short".to_owned());
        let end = source.length().checked_sub(if sealed { SEAL } else { 0 }).ok_or_else(short)?;
        let mut length = [0; 8];
        let tail = end.checked_sub(8).filter(|tail| *tail >= start).ok_or_else(short)?;
        length.copy_from_slice(source.bytes(tail..end, &mut first)?);
        let begin = tail.checked_sub(u64::from_le_bytes(length)).filter(|begin| *begin >= start);
        let begin = begin.ok_or_else(short)?;
        let text = source.bytes(begin..end, &mut second)?;
        let seal = source.bytes(end..source.length(), &mut first)?;
        if sealed && Sha256::digest(text).as_slice() != seal {
            return Err(ReceiptError::Damaged.into());
        }
        let text = text.get(..text.len() - length.len()).unwrap_or_default();
        let contents = serde_json::from_slice(text)
            .map_err(|error| ReceiptError::NoReceipt(error.to_string()))?;
        Ok(Self { contents, sealed, data: start, source })
    }

    /// Bytes of the whole file.
    pub(in crate::ops) fn length(&self) -> u64 {
        self.source.length()
    }

    /// The bytes of a span.
    ///
    /// # Errors
    /// If it leaves the file, or reading fails.
    pub(in crate::ops) fn bytes(&self, span: Span) -> Result<Vec<u8>> {
        let begin = self.data.saturating_add(span.start);
        let mut scratch = Vec::new();
        let range = begin..begin.saturating_add(span.bytes);
        Ok(self.source.bytes(range, &mut scratch)?.to_vec())
    }
}

/// A receipt being written.
pub(super) struct Writer {
    file: OutputFile,
    at: u64,
}

impl Writer {
    pub(super) fn new(mut file: OutputFile) -> Result<Self> {
        file.write_at(MAGIC, 0)?;
        Ok(Self { file, at: 0 })
    }

    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<Span> {
        let span = Span { start: self.at, bytes: bytes.len() as u64 };
        self.file.write_at(bytes, MAGIC.len() as u64 + self.at)?;
        self.at += span.bytes;
        Ok(span)
    }

    /// Where the next bytes will be.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Ends the receipt; its length.
    pub(super) fn finish(mut self, contents: &Contents) -> Result<u64> {
        let text =
            serde_json::to_vec(contents).map_err(|error| ErrorKind::Io(io::Error::other(error)))?;
        let mut end = text;
        end.extend_from_slice(&(end.len() as u64).to_le_bytes());
        self.add(&end)?;
        self.add(&Sha256::digest(&end))?;
        self.file.finish()?;
        Ok(MAGIC.len() as u64 + self.at)
    }
}
