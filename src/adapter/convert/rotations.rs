//! Rotations of outputs for ComfyUI, which keeps ‖Q‖ to alpha and not to alpha · outputs (`oft.py` and
//! `boft.py` of its `comfy/weight_adapter`), and of a BOFT without alpha makes nothing: what the constraint
//! leaves of Q stands in the blocks, and alpha is 0, which constrains nothing.

use super::fold::{Factor, multiply};
use crate::adapter::convention::{Convention, Names, Part};
use crate::adapter::family::oft_blocks::held;
use crate::adapter::module::Module;
use crate::adapter::save::PartTensor;
use crate::error::Result;
use crate::format::Dtype;

/// The module's tensors as ComfyUI reads them; none if it reads them right as they are.
///
/// # Errors
/// If a tensor to be scaled has no floating-point dtype.
pub(super) fn unconstrained(
    module: &Module,
    tensors: &[PartTensor],
    to: &Convention,
) -> Result<Option<Vec<PartTensor>>> {
    let blocks = tensors.iter().position(|tensor| tensor.0 == Part::Named("oft_blocks"));
    let (Some(at), true) = (blocks, to.names == Names::Checkpoint) else { return Ok(None) };
    let mut tensors = tensors.to_vec();
    let Some((_, dtype, shape, bytes)) = tensors.get_mut(at) else { return Ok(None) };
    let mut blocks = Factor { dtype: *dtype, shape: shape.clone(), bytes: std::mem::take(bytes) };
    let size = shape.last().copied().unwrap_or(1).max(1);
    let limit = (module.scale.alpha, module.outputs);
    let factor = held(&module.name, limit, (&blocks.values()?, size));
    multiply(&mut blocks, factor)?;
    (*dtype, *bytes) = (blocks.dtype, blocks.bytes);
    tensors.push((Part::Alpha, Dtype::F32, Vec::new(), vec![0; 4]));
    Ok(Some(tensors))
}
