//! Numbers of a collection as they are stored, and back.

use super::options::Number;
use crate::error::{CollectionError, ErrorKind, Result};
use crate::format::{Checkpoint, Dtype};
use crate::weight::element::{decoded, encoded};

/// The largest code; −128 is not used, so that codes are as far from zero on either side.
const LARGEST: f64 = 127.0;

/// Numbers as they are stored.
#[derive(Debug, Clone, Default)]
pub(super) struct Coded {
    pub(super) bytes: Vec<u8>,
    /// One scale in f32 for every row, of codes.
    pub(super) scales: Vec<u8>,
}

impl Coded {
    /// Adds rows of so many values.
    ///
    /// # Errors
    /// A value that the dtype does not reach.
    pub(super) fn add(&mut self, number: Number, values: &[f64], length: usize) -> Result<()> {
        match number {
            Number::Float(dtype) => {
                let bytes = encoded(dtype, values)?;
                let read = decoded(dtype, &bytes)?;
                if let Some(index) = read.iter().position(|value| !value.is_finite()) {
                    let value = values.get(index).copied().unwrap_or(f64::NAN);
                    let dtype = dtype.to_string();
                    return Err(ErrorKind::Overflow { index, value, dtype }.into());
                }
                self.bytes.extend(bytes);
            }
            Number::Int8 => {
                for row in values.chunks_exact(length.max(1)) {
                    let most = row.iter().fold(0f64, |most, value| most.max(value.abs()));
                    // The scale is rounded first: codes are for the one that is stored.
                    let scale = (most / LARGEST) as f32;
                    let unit = if scale > 0.0 { f64::from(scale) } else { 1.0 };
                    let code = |value: &f64| {
                        (value / unit).round_ties_even().clamp(-LARGEST, LARGEST) as i8
                    };
                    self.bytes.extend(row.iter().map(|value| code(value).cast_unsigned()));
                    self.scales.extend(scale.to_le_bytes());
                }
            }
        }
        Ok(())
    }

    /// The values again, of rows of so many.
    ///
    /// # Errors
    /// A dtype that holds no numbers.
    pub(super) fn values(&self, dtype: Dtype, length: usize) -> Result<Vec<f64>> {
        values(dtype, &self.bytes, &self.scales, length)
    }
}

/// Values of stored rows of so many.
///
/// # Errors
/// A dtype that holds no numbers.
pub(super) fn values(dtype: Dtype, bytes: &[u8], scales: &[u8], length: usize) -> Result<Vec<f64>> {
    if dtype != Dtype::I8 {
        return decoded(dtype, bytes);
    }
    let scales = scales.chunks_exact(4).map(|bytes| {
        let bytes: [u8; 4] = bytes.try_into().unwrap_or_default();
        f64::from(f32::from_le_bytes(bytes))
    });
    let rows = bytes.chunks_exact(length.max(1)).zip(scales);
    let row = |(row, scale): (&[u8], f64)| {
        row.iter().map(|code| f64::from(code.cast_signed()) * scale).collect::<Vec<f64>>()
    };
    Ok(rows.flat_map(row).collect())
}

/// All values of a tensor of rows of so many, with the tensor of its scales if it has codes.
///
/// # Errors
/// A tensor that is missing, of another length than the header says, or not finite; reading errors.
pub(super) fn read(
    file: &Checkpoint,
    (name, scales): (&str, &str),
    (rows, length): (usize, usize),
) -> Result<Vec<f64>> {
    let damaged = |what: String| CollectionError::Damaged(what);
    let view = file.tensor(name).ok_or_else(|| damaged(format!("it lacks `{name}`")))?;
    let mut scratch = Vec::new();
    let bytes = view.all(&mut scratch)?;
    let mut other = Vec::new();
    let codes = match view.spec.dtype {
        Dtype::I8 => {
            let scales = file.tensor(scales);
            scales
                .ok_or_else(|| damaged(format!("it lacks the scales of `{name}`")))?
                .all(&mut other)?
        }
        _ => &[],
    };
    let found = values(view.spec.dtype, bytes, codes, length)?;
    if found.len() != rows * length || found.iter().any(|value| !value.is_finite()) {
        return Err(damaged(format!("`{name}` is not as its header says")).into());
    }
    Ok(found)
}
