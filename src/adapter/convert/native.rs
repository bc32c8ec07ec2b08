//! LoHa and LoKr from PEFT's directories to files of kohya's kind: the tensors are LyCORIS' own, only
//! their scale is said elsewhere (peft `tuners/lycoris_utils.py`; LyCORIS `modules/loha.py`, `lokr.py`).

use super::fold::{Factor, multiply};
use crate::adapter::convention::{Convention, Part, ScalePlace};
use crate::adapter::module::Module;
use crate::adapter::save::PartTensor;
use crate::error::Result;
use crate::format::Dtype;

/// The module's tensors with an alpha of their own; none if that is not all there is to change.
///
/// LyCORIS divides alpha by the inner dimension of the second part, else of the first, and takes no
/// alpha where LoKr's parts are both whole: there the scale goes into the first.
///
/// # Errors
/// If a tensor to be scaled has no floating-point dtype.
pub(super) fn with_alpha(
    module: &Module,
    tensors: &[PartTensor],
    from: &Convention,
    to: &Convention,
) -> Result<Option<Vec<PartTensor>>> {
    let moves = from.scale == ScalePlace::Patterns && to.scale == ScalePlace::Tensor;
    if !moves || module.magnitude.is_some() {
        return Ok(None);
    }
    let inner = |name: &'static str| {
        let found = tensors.iter().find(|tensor| tensor.0 == Part::Named(name));
        found.and_then(|tensor| tensor.2.first().copied())
    };
    let mut tensors = tensors.to_vec();
    match ["hada_w1_b", "lokr_w2_b", "lokr_w1_b"].into_iter().find_map(inner) {
        Some(rank) => {
            let alpha = (module.scale.value * rank as f64) as f32;
            let bytes = alpha.to_le_bytes().to_vec();
            tensors.push((Part::Alpha, Dtype::F32, Vec::new(), bytes));
        }
        None => {
            let whole = tensors.iter_mut().find(|tensor| tensor.0 == Part::Named("lokr_w1"));
            let Some((_, dtype, shape, bytes)) = whole else { return Ok(None) };
            let mut scaled =
                Factor { dtype: *dtype, shape: shape.clone(), bytes: std::mem::take(bytes) };
            multiply(&mut scaled, module.scale.value)?;
            (*dtype, *bytes) = (scaled.dtype, scaled.bytes);
        }
    }
    Ok(Some(tensors))
}
