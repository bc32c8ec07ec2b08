//! Where a receipt may stand.

use std::path::Path;

use crate::error::{Locate, ReceiptError, Result};
use crate::format::staging::kept_root;
use crate::ops::shared::output::resolve_new;

/// Fails if the output would take the receipt with it, now or while it is built.
///
/// # Errors
/// [`ReceiptError::InOutput`].
pub(in crate::ops) fn check_place(receipt: &Path, output: &Path) -> Result<()> {
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
