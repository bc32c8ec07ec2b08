//! A receipt on disk: a line that says what it is, the length of the contents, the contents as JSON, the
//! bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Contents, Span};
use crate::error::{ErrorKind, Locate, ReceiptError, Result};
use crate::format::{Access, OutputFile, Source};

const MAGIC: &[u8] = b"lora-tool receipt 1\n";

/// An open receipt.
#[derive(Debug)]
pub(in crate::ops) struct Receipt {
    pub(in crate::ops) contents: Contents,
    source: Source,
    data: u64,
}

impl Receipt {
    /// Opens a receipt.
    ///
    /// # Errors
    /// If it cannot be read, or is no receipt of this version.
    pub(in crate::ops) fn open(path: &Path, access: Access) -> Result<Self> {
        let source = Source::open(path, access).in_file(path)?;
        Self::read(source).map_err(|error| error.in_file(path))
    }

    fn read(source: Source) -> Result<Self> {
        let start = MAGIC.len() as u64;
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let none = |_| ReceiptError::NoReceipt("it does not begin as one".to_owned());
        if source.bytes(0..start, &mut first).map_err(none)? != MAGIC {
            return Err(ReceiptError::NoReceipt("it does not begin as one".to_owned()).into());
        }
        // The contents stand last, since only then all is known.
        let end = source.length();
        let mut length = [0; 8];
        let tail = end.checked_sub(8).filter(|tail| *tail >= start);
        let tail = tail.ok_or_else(|| ReceiptError::NoReceipt("it is cut short".to_owned()))?;
        length.copy_from_slice(source.bytes(tail..end, &mut first)?);
        let begin = tail.checked_sub(u64::from_le_bytes(length)).filter(|begin| *begin >= start);
        let begin = begin.ok_or_else(|| ReceiptError::NoReceipt("it is cut short".to_owned()))?;
        let text = source.bytes(begin..tail, &mut second)?;
        let contents = serde_json::from_slice(text)
            .map_err(|error| ReceiptError::NoReceipt(error.to_string()))?;
        Ok(Self { contents, data: start, source })
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
        self.add(&text)?;
        self.add(&(text.len() as u64).to_le_bytes())?;
        self.file.finish()?;
        Ok(MAGIC.len() as u64 + self.at)
    }
}

/// SHA-256 of a whole file, in hexadecimal.
pub(in crate::ops) fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).in_file(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).in_file(path)? {
            0 => return Ok(format!("{:x}", hash.finalize())),
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}
