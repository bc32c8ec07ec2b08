//! What can go wrong with the header of a file of tensors.

use super::look::FileKind;

/// See [`ErrorKind::Header`](super::ErrorKind::Header).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file is too short for its own header.
    #[error("the file is truncated: its header needs {needed} bytes, the file has {found}")]
    TruncatedHeader {
        /// Bytes the header claims, with its 8-byte length.
        needed: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// The header claims an absurd size.
    #[error("not a safetensors file: its header claims {claimed} bytes, and may have {limit}")]
    HeaderTooLarge {
        /// What the first eight bytes say.
        claimed: u64,
        /// The format's limit.
        limit: u64,
    },
    /// The header is not what the format says.
    #[error("not a safetensors file: {reason}")]
    BadHeader {
        /// What the parser met.
        reason: String,
    },
    /// A file of another kind in the place of a safetensors file.
    #[error("it is {}, not a safetensors file", kind.what)]
    OtherFormat {
        /// Which.
        kind: FileKind,
    },
    /// One name, twice.
    #[error("the header names it twice")]
    DuplicateKey,
    /// A tensor's byte range disagrees with its dtype and shape.
    #[error("{dtype} {shape:?} needs {expected} bytes, its offsets span {found}")]
    ByteCount {
        /// The tensor's dtype.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes that dtype and shape need.
        expected: String,
        /// Bytes that the offsets span.
        found: u64,
    },
    /// A tensor starts before the previous one ends, or later.
    #[error("its bytes start at {found}, expected {expected}: tensors {what}")]
    Offsets {
        /// Where the previous tensor ended.
        expected: u64,
        /// Where this one starts.
        found: u64,
        /// `overlap` or `leave a hole`.
        what: &'static str,
    },
    /// The tensors' bytes do not fill the file.
    #[error(
        "the file is truncated or padded: its tensors end at byte {expected}, the file at {found}"
    )]
    FileLength {
        /// Where the last tensor ends, from the file's start.
        expected: u64,
        /// The file's length.
        found: u64,
    },
}

impl HeaderError {
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::TruncatedHeader { .. } | Self::FileLength { .. } => {
                "the download or copy was probably cut short; fetch the file again"
            }
            Self::BadHeader { .. } | Self::HeaderTooLarge { .. } => {
                "is it a .safetensors file, and did it arrive whole?"
            }
            Self::DuplicateKey | Self::ByteCount { .. } | Self::Offsets { .. } => {
                "the file is damaged or was made to mislead; get it from its source again"
            }
            Self::OtherFormat { kind } => kind.hint,
        }
    }
}
