//! What several conventions do alike when they read and write tensors.

use crate::error::{ErrorKind, Result};

/// Experts of one layer that are read. The largest models have some hundred.
pub(crate) const MOST_EXPERTS: usize = 8192;

/// The one number all modules have, where they have one.
pub(super) fn one_for_all(values: impl Iterator<Item = f64>, what: &str) -> Result<f64> {
    let values: Vec<f64> = values.collect();
    let first = values.first().copied().unwrap_or(1.0);
    if values.iter().all(|value| (value - first).abs() <= first.abs() * 1e-12) {
        return Ok(first);
    }
    let reason = format!("the convention has one {what} for all modules, and these differ");
    Err(ErrorKind::BadOption(reason).into())
}

/// A rows × columns tensor's bytes as columns × rows.
pub(super) fn transposed(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let size = bytes.len().checked_div(rows * columns).unwrap_or(0).max(1);
    let mut turned = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            let at = (row * columns + column) * size;
            turned.extend_from_slice(bytes.get(at..at + size).unwrap_or_default());
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_twice_is_nothing() {
        let bytes: Vec<u8> = (0..24).collect();
        let once = transposed(&bytes, 3, 4);
        assert_eq!(once[..4], [0, 1, 8, 9]);
        assert_eq!(transposed(&once, 4, 3), bytes);
    }
}
