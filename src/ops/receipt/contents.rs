//! What is written in a receipt.

use serde::{Deserialize, Serialize};

/// A stretch of the receipt's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::ops) struct Span {
    pub(super) start: u64,
    pub(super) bytes: u64,
}

/// A file that must be the very one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::ops) struct Mark {
    /// Its path below the checkpoint; empty if the checkpoint is this file.
    pub(in crate::ops) relative: String,
    pub(in crate::ops) sha256: String,
    pub(in crate::ops) bytes: u64,
}

/// Everything but the bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::ops) struct Contents {
    pub(in crate::ops) version: String,
    /// The weight files that the merge wrote.
    pub(in crate::ops) merged: Vec<Mark>,
    /// The weight files to make.
    pub(in crate::ops) base: Vec<BaseFile>,
    /// Other files of the base: kept here, or as the merge copied them.
    pub(in crate::ops) sides: Vec<SideRecord>,
}

/// A weight file of the base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::ops) struct BaseFile {
    pub(in crate::ops) mark: Mark,
    /// Its header, whole.
    pub(super) head: Span,
    /// The rest of it, in order.
    pub(super) parts: Vec<ReceiptPiece>,
}

/// Bytes of a base file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ReceiptPiece {
    /// As they are in a merged file, from `at` on.
    Copy { file: usize, at: u64, bytes: u64 },
    /// By steps from a merged tensor's values.
    Steps(Coded),
    /// In the receipt itself.
    Kept(Span),
}

/// A base tensor told by a merged one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Coded {
    pub(super) file: usize,
    pub(super) at: u64,
    /// The merged tensor's dtype and the base's.
    pub(super) from: String,
    pub(super) to: String,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) rank: usize,
    /// The guess: scales (f64), left and right (i16), little-endian.
    pub(super) guess: Span,
    /// Ends of the blocks' codes within `codes`.
    pub(super) ends: Vec<u64>,
    pub(super) codes: Span,
}

/// A small file beside the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::ops) struct SideRecord {
    pub(in crate::ops) relative: String,
    pub(in crate::ops) sha256: String,
    /// Its bytes, where the merge did not leave them as they were.
    pub(in crate::ops) kept: Option<Span>,
}
