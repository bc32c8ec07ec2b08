//! Positions that a file stores as numbers: which elements of a weight, or of a shared vector, are meant.

use safetensors::Dtype;

use crate::adapter::slice::find;
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, FamilyError, Locate, Result};
use crate::format::Checkpoint;

/// The positions that a tensor holds, each below `limit`: whole numbers of 32 or 64 bits, or as PEFT writes them on
/// Windows, in floating point.
///
/// # Errors
/// A position that is none; a dtype that holds none; reading errors.
pub(super) fn read(file: &Checkpoint, tensor: &str, limit: u64) -> Result<Vec<usize>> {
    let view = find(file, tensor)?;
    let mut scratch = Vec::new();
    let bytes = view.all(&mut scratch)?;
    let values: Vec<f64> = match view.spec.dtype {
        Dtype::I32 => {
            let (values, _) = bytes.as_chunks::<4>();
            values.iter().map(|bytes| f64::from(i32::from_le_bytes(*bytes))).collect()
        }
        Dtype::I64 => {
            let (values, _) = bytes.as_chunks::<8>();
            values.iter().map(|bytes| i64::from_le_bytes(*bytes) as f64).collect()
        }
        Dtype::F32 => read_f64(view, 0, view.spec.elements())?,
        dtype => {
            let dtype = format!("{dtype}, where positions are I32 or I64");
            return Err(ErrorKind::BadDtype { dtype }).in_tensor(tensor);
        }
    };
    let position = |(index, value): (usize, f64)| {
        let is_one = value >= 0.0 && value.fract() == 0.0 && value < limit as f64;
        let fault = FamilyError::Position { index, value, limit };
        if is_one { Ok(value as usize) } else { Err(fault) }
    };
    let positions = values.into_iter().enumerate().map(position);
    positions.collect::<std::result::Result<_, _>>().in_tensor(tensor)
}
