//! From an adapter's stored tensors to factors.

use super::slice::Span;
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

/// Reads some rows and columns of a tensor of this width, row by row. The spans lie inside it.
///
/// # Errors
/// If reading fails or the dtype is no floating-point type.
pub(super) fn read_spans(
    view: TensorView<'_>,
    width: usize,
    rows: Span,
    columns: Span,
) -> Result<Vec<f32>> {
    let element = arithmetic(view)?;
    let size = element.size();
    let mut values = vec![0.0; rows.count * columns.count];
    let (mut scratch, mut picked) = (Vec::new(), Vec::with_capacity(columns.count * size));
    let bytes = view.all(&mut scratch)?;
    for (row, values) in rows.positions().zip(values.chunks_mut(columns.count.max(1))) {
        let row = bytes.get(row * width * size..).unwrap_or_default();
        let own = row.get(columns.first * size..).unwrap_or_default();
        if columns.step == 1 {
            element.decode_f32(own.get(..columns.count * size).unwrap_or_default(), values);
            continue;
        }
        picked.clear();
        for value in own.chunks(columns.step.max(1) * size).take(columns.count) {
            picked.extend(value.get(..size).unwrap_or_default());
        }
        element.decode_f32(&picked, values);
    }
    Ok(values)
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
