//! What a merge keeps so that its base can be had back, bit for bit, from the merged checkpoint.
//!
//! A receipt does not know adapters or methods: it tells each base tensor by the merged one. Where the
//! difference is of low rank, a guess of it is taken off and what is left are few steps of the last
//! place; whatever it is, the steps are kept, so nothing is ever lost. Hashes of all files, merged and
//! base, are in it.

mod bound;
mod code;
mod file;
mod make;
pub(super) mod restore;

pub(super) use bound::check as check_bounds;
pub(super) use file::{Receipt, hash_file, hash_pieces};
pub(super) use make::make;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Locate, ReceiptError, Result};
use crate::format::staging::kept_root;
use crate::ops::shared::output::resolve_new;

/// Fails if the output would take the receipt with it, now or while it is built.
///
/// # Errors
/// [`ReceiptError::InOutput`].
pub(super) fn check_place(receipt: &Path, output: &Path) -> Result<()> {
    let receipt_at = resolve_new(receipt);
    for place in [output, &kept_root(output)] {
        let place = resolve_new(place);
        if receipt_at.starts_with(&place) || place.starts_with(&receipt_at) {
            let output = output.to_path_buf();
            return Err(ReceiptError::InOutput { output }).in_file(receipt);
        }
    }
    Ok(())
}

/// A stretch of the receipt's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    start: u64,
    bytes: u64,
}

/// A file that must be the very one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Its path below the checkpoint; empty if the checkpoint is this file.
    pub(super) relative: String,
    pub(super) sha256: String,
    pub(super) bytes: u64,
}

/// Everything but the bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Contents {
    pub(super) version: String,
    /// The weight files that the merge wrote.
    pub(super) merged: Vec<Mark>,
    /// The weight files to make.
    pub(super) base: Vec<BaseFile>,
    /// Other files of the base: kept here, or as the merge copied them.
    pub(super) sides: Vec<Side>,
}

/// A weight file of the base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct BaseFile {
    pub(super) mark: Mark,
    /// Its header, whole.
    head: Span,
    /// The rest of it, in order.
    parts: Vec<Part>,
}

/// Bytes of a base file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    /// As they are in a merged file, from `at` on.
    Copy { file: usize, at: u64, bytes: u64 },
    /// By steps from a merged tensor's values.
    Steps(Coded),
    /// In the receipt itself.
    Kept(Span),
}

/// A base tensor told by a merged one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Coded {
    file: usize,
    at: u64,
    /// The merged tensor's dtype and the base's.
    from: String,
    to: String,
    rows: usize,
    columns: usize,
    rank: usize,
    /// The guess: scales (f64), left and right (i16), little-endian.
    guess: Span,
    /// Ends of the blocks' codes within `codes`.
    ends: Vec<u64>,
    codes: Span,
}

/// A small file beside the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Side {
    pub(super) relative: String,
    pub(super) sha256: String,
    /// Its bytes, where the merge did not leave them as they were.
    pub(super) kept: Option<Span>,
}
