//! Checkpoints opened as numbers, for whoever looks at weights whatever they are stored as.

use std::path::Path;

use super::{Weights, decoded};
use crate::error::{ErrorKind, QuantError, Result};
use crate::format::{Access, Checkpoint};

/// Opens a checkpoint that is only looked at, its quantised weights decoded.
///
/// # Errors
/// As [`Checkpoint::open`] and [`numbers`].
pub(crate) fn open_reference(path: &Path, access: Access) -> Result<Checkpoint> {
    numbers(Checkpoint::open(path, access)?)
}

/// A checkpoint with its quantised weights decoded. One in a scheme that is known and not read stays as it is
/// stored; a verb that needs such a weight refuses it by name.
///
/// # Errors
/// If its quantised weights are damaged; the tensor is named.
pub(crate) fn numbers(stored: Checkpoint) -> Result<Checkpoint> {
    match Weights::of(&stored) {
        Ok(weights) => decoded(stored, &weights),
        Err(error) => match error.kind() {
            ErrorKind::Quant(QuantError::Unsupported { .. }) if !stored.is_gguf() => Ok(stored),
            _ => Err(error),
        },
    }
}
