//! From an adapter's stored tensors to factors.

use crate::error::{ErrorKind, Locate, Result};
use crate::format::TensorView;
use crate::math::Factor;
use crate::weight::element::arithmetic;
pub use crate::weight::element::{element_type, read_f64};

/// Reads a whole tensor as a rows × columns factor.
///
/// # Errors
/// If reading fails, the dtype is no floating-point type, or the tensor has another size.
pub fn read_factor(view: TensorView<'_>, rows: usize, columns: usize) -> Result<Factor> {
    let element = arithmetic(view)?;
    if view.spec.elements() != rows * columns {
        let expected = format!("{rows} × {columns} elements");
        return Err(ErrorKind::BadShape { expected, found: view.spec.shape.clone() })
            .in_tensor(&view.spec.name)
            .in_file(&view.shard.path);
    }
    let mut scratch = Vec::new();
    let mut values = vec![0.0; rows * columns];
    element.decode_f32(view.all(&mut scratch)?, &mut values);
    Ok(Factor::new(rows, columns, values))
}

/// Fails if any element of the tensor is infinite or NaN.
///
/// # Errors
/// [`ErrorKind::NonFinite`], or [`ErrorKind::BeyondF32`] of what only f64 holds, with the element's
/// index; reading errors.
pub fn check_finite(view: TensorView<'_>) -> Result<()> {
    let values = read_factor(view, 1, view.spec.elements())?.values;
    let Some(index) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let value = read_f64(view, index, 1)?.first().copied().unwrap_or(f64::NAN);
    let kind = match value.is_finite() {
        true => ErrorKind::BeyondF32 { index, value },
        false => ErrorKind::NonFinite { index, value: value.to_string() },
    };
    Err(kind).in_tensor(&view.spec.name).in_file(&view.shard.path)
}
