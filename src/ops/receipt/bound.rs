//! What a receipt may make, before anything is made: whoever writes one chooses its numbers.

use super::contents::{BaseFile, ReceiptPiece};
use super::file::Receipt;
use crate::error::{ReceiptError, Result};
use crate::weight::element::float_named;

/// Fails unless every file's parts have just the bytes that it is to have, and all parts together take no
/// byte of the merged files or of the receipt more than once: what is restored is bounded by both.
///
/// # Errors
/// [`ReceiptError::Unbounded`].
pub(in crate::ops) fn check(receipt: &Receipt, merged: u64) -> Result<()> {
    let mut taken = Taken::default();
    let fits = receipt.contents.base.iter().all(|file| taken.add(file) == Some(file.mark.bytes));
    if fits && taken.merged <= merged && taken.receipt <= receipt.length() {
        return Ok(());
    }
    Err(ReceiptError::Unbounded.into())
}

/// Bytes that parts are made of.
#[derive(Default)]
struct Taken {
    merged: u64,
    receipt: u64,
}

impl Taken {
    /// Adds a file's parts; the bytes that come of them. `None` if numbers overflow.
    fn add(&mut self, file: &BaseFile) -> Option<u64> {
        let mut made = file.head.bytes;
        self.receipt = self.receipt.checked_add(file.head.bytes)?;
        for part in &file.parts {
            let (merged, receipt, bytes) = match part {
                ReceiptPiece::Copy { bytes, .. } => (*bytes, 0, *bytes),
                ReceiptPiece::Kept(span) => (0, span.bytes, span.bytes),
                ReceiptPiece::Steps(coded) => {
                    let elements = (coded.rows as u64).checked_mul(coded.columns as u64)?;
                    let bytes = |name| elements.checked_mul(float_named(name)?.size() as u64);
                    let kept = coded.guess.bytes.checked_add(coded.codes.bytes)?;
                    (bytes(&coded.from)?, kept, bytes(&coded.to)?)
                }
            };
            self.merged = self.merged.checked_add(merged)?;
            self.receipt = self.receipt.checked_add(receipt)?;
            made = made.checked_add(bytes)?;
        }
        Some(made)
    }
}
