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

/// Whether arithmetic can be done on a dtype.
pub fn is_float(dtype: Dtype) -> bool {
    element_type(dtype).is_some()
}

/// The element type of a dtype.
///
/// # Errors
/// [`ErrorKind::BadDtype`], if it is no floating-point type.
pub(crate) fn float_type(dtype: Dtype) -> Result<ElementType> {
    element_type(dtype).ok_or_else(|| ErrorKind::BadDtype { dtype: dtype.to_string() }.into())
}

/// The element type of the dtype of this name.
pub(crate) fn float_named(name: &str) -> Option<ElementType> {
    let all = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64];
    all.into_iter().find(|dtype| dtype.to_string() == name).and_then(element_type)
}

/// A dtype that holds the values of all; F32 of none.
pub(crate) fn widest(dtypes: impl Iterator<Item = Dtype>) -> Dtype {
    let widest = dtypes.reduce(|widest, dtype| match (widest, dtype) {
        (Dtype::F64, _) | (_, Dtype::F64) => Dtype::F64,
        (Dtype::F32, _) | (_, Dtype::F32) => Dtype::F32,
        // Neither holds the other's values.
        (Dtype::F16, Dtype::BF16) | (Dtype::BF16, Dtype::F16) => Dtype::F32,
        (widest, _) => widest,
    });
    widest.unwrap_or(Dtype::F32)
}

/// The values in the bytes of a dtype.
///
/// # Errors
/// [`ErrorKind::BadDtype`], if it is no floating-point type.
pub(crate) fn decoded(dtype: Dtype, bytes: &[u8]) -> Result<Vec<f64>> {
    let element = float_type(dtype)?;
    let mut values = vec![0.0; bytes.len() / element.size()];
    element.decode(bytes, &mut values);
    Ok(values)
}

/// Values in the bytes of a dtype, each rounded once.
///
/// # Errors
/// [`ErrorKind::BadDtype`], if it is no floating-point type.
pub(crate) fn encoded(dtype: Dtype, values: &[f64]) -> Result<Vec<u8>> {
    let element = float_type(dtype)?;
    let mut bytes = vec![0; values.len() * element.size()];
    element.encode(values, &mut bytes);
    Ok(bytes)
}

/// The name that PyTorch gives a dtype of plain numbers.
pub(crate) fn torch_name(dtype: Dtype) -> Option<&'static str> {
    TORCH_NAMES.iter().find(|(_, known)| *known == dtype).map(|(name, _)| *name)
}

/// The dtype of plain numbers that PyTorch calls so, with or without `torch.` before it.
pub(crate) fn of_torch_name(name: &str) -> Option<Dtype> {
    let name = name.trim_start_matches("torch.");
    TORCH_NAMES.iter().find(|(known, _)| *known == name).map(|(_, dtype)| *dtype)
}

const TORCH_NAMES: [(&str, Dtype); 3] =
    [("float32", Dtype::F32), ("float16", Dtype::F16), ("bfloat16", Dtype::BF16)];

/// The element type of a tensor.
///
/// # Errors
/// If the dtype is no floating-point type.
pub(crate) fn arithmetic(view: TensorView<'_>) -> Result<ElementType> {
    float_type(view.spec.dtype).in_tensor(&view.spec.name).in_file(&view.shard.path)
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
