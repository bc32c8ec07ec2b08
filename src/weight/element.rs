//! From stored tensors to numbers: the one place where dtypes meet element types.

use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Dtype, TensorView};
use crate::math::ElementType;

/// The element type of a dtype that arithmetic can be done on.
pub fn element_type(dtype: Dtype) -> Option<ElementType> {
    match dtype {
        Dtype::BF16 => Some(ElementType::Bf16),
        Dtype::F16 => Some(ElementType::F16),
        Dtype::F32 => Some(ElementType::F32),
        Dtype::F64 => Some(ElementType::F64),
        _ => None,
    }
}

/// The element type of a tensor.
///
/// # Errors
/// If the dtype is no floating-point type.
pub(crate) fn arithmetic(view: TensorView<'_>) -> Result<ElementType> {
    element_type(view.spec.dtype)
        .ok_or_else(|| ErrorKind::BadDtype { dtype: view.spec.dtype.to_string() })
        .in_tensor(&view.spec.name)
        .in_file(&view.shard.path)
}

/// Reads elements `first..first + count` of a tensor, in f64.
///
/// # Errors
/// If reading fails or the dtype is no floating-point type.
pub fn read_f64(view: TensorView<'_>, first: usize, count: usize) -> Result<Vec<f64>> {
    let element = arithmetic(view)?;
    let size = element.size() as u64;
    let mut scratch = Vec::new();
    let range = first as u64 * size..(first + count) as u64 * size;
    let bytes = view.bytes(range, &mut scratch)?;
    let mut values = vec![0.0; count];
    element.decode(bytes, &mut values);
    Ok(values)
}
