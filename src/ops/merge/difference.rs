//! Differences of fine-tuned checkpoints at work: weight · (T − W), any rows of them.

use super::change::Difference;
use crate::adapter::tensor::{element_type, read_f64};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Checkpoint, TensorView};
use crate::math::ElementType;
use crate::math::kernel::stored_delta;

/// A tuned tensor ready to be read.
pub(in crate::ops) struct Tuned<'a> {
    view: TensorView<'a>,
    weight: f64,
}

impl<'a> Tuned<'a> {
    /// Finds the tensors of all differences of a change.
    pub(in crate::ops) fn all(
        differences: &[Difference],
        tuned: &'a [Checkpoint],
    ) -> Result<Vec<Self>> {
        let find = |step: &Difference| {
            let view = tuned.get(step.tuned).and_then(|tuned| tuned.tensor(&step.tensor));
            let view = view.ok_or(ErrorKind::NotFound).in_tensor(&step.tensor)?;
            Ok(Self { view, weight: step.weight })
        };
        differences.iter().map(find).collect()
    }

    /// Elements `first..first + count` of T, all of them finite.
    fn read(&self, first: usize, count: usize) -> Result<Vec<f64>> {
        let values = read_f64(self.view, first, count)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => {
                let value = values.get(at).map(ToString::to_string).unwrap_or_default();
                Err(ErrorKind::NonFinite { index: first + at, value })
                    .in_tensor(&self.view.spec.name)
                    .in_file(&self.view.shard.path)
            }
        }
    }

    /// T − W of elements `first..` as f32, W being these bytes of a base; whether the types are such
    /// that it can.
    pub(super) fn subtract(
        &self,
        (base, element): (&[u8], ElementType),
        first: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<bool> {
        let Some(own) = self.kernel_type().filter(|_| stored_delta::takes(element)) else {
            return Ok(false);
        };
        let bytes = stored(self.view, own, first, out.len(), scratch)?;
        if own == element && bytes == base {
            // The same bytes have no difference, whatever they are.
            out.fill(0.0);
        } else if !stored_delta::subtract((own, element), bytes, base, out) {
            self.read(first, out.len())?;
        }
        Ok(true)
    }

    /// The type, if the kernels take it.
    fn kernel_type(&self) -> Option<ElementType> {
        element_type(self.view.spec.dtype).filter(|element| stored_delta::takes(*element))
    }

    /// Whether its bytes in `range` are just these, in this dtype.
    fn holds(
        &self,
        base: TensorView<'_>,
        range: &std::ops::Range<u64>,
        bytes: &[u8],
    ) -> Result<bool> {
        let mut scratch = Vec::new();
        Ok(self.view.spec.dtype == base.spec.dtype
            && self.view.bytes(range.clone(), &mut scratch)? == bytes)
    }
}

/// Adds all differences to elements `first..` of the base, which `values` hold.
pub(in crate::ops) fn add_all(
    differences: &[Tuned<'_>],
    values: &mut [f64],
    first: usize,
) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let base = values.to_vec();
    for difference in differences {
        let tuned = difference.read(first, base.len())?;
        for ((value, tuned), base) in values.iter_mut().zip(&tuned).zip(&base) {
            // 0 is not added, which would take the sign of a −0.
            if tuned != base {
                *value += difference.weight * (tuned - base);
            }
        }
    }
    Ok(())
}

/// Adds all differences to `values`, which these bytes of a base, elements `first..`, stand for;
/// whether the types are such that it can.
pub(super) fn add_stored(
    differences: &[Tuned<'_>],
    (base, element): (&[u8], ElementType),
    values: &mut [f64],
    first: usize,
    scratch: &mut Vec<u8>,
) -> Result<bool> {
    if differences.iter().any(|difference| difference.kernel_type().is_none()) {
        return Ok(false);
    }
    for difference in differences {
        let Some(own) = difference.kernel_type() else { return Ok(false) };
        let bytes = stored(difference.view, own, first, values.len(), scratch)?;
        if !stored_delta::add_difference((own, element), bytes, base, difference.weight, values) {
            difference.read(first, values.len())?;
        }
    }
    Ok(true)
}

/// The bytes of elements `first..first + count` of a tensor.
pub(super) fn stored<'s>(
    view: TensorView<'s>,
    element: ElementType,
    first: usize,
    count: usize,
    scratch: &'s mut Vec<u8>,
) -> Result<&'s [u8]> {
    let size = element.size() as u64;
    view.bytes(first as u64 * size..(first + count) as u64 * size, scratch)
}

/// The base's bytes of elements `first..first + count`, if all differences are 0 there to the bit.
pub(super) fn unchanged<'s>(
    differences: &[Tuned<'_>],
    base: TensorView<'s>,
    first: usize,
    count: usize,
    scratch: &'s mut Vec<u8>,
) -> Result<Option<&'s [u8]>> {
    let size = base.spec.dtype.bitsize() as u64 / 8;
    let range = first as u64 * size..(first + count) as u64 * size;
    let bytes = base.bytes(range.clone(), scratch)?;
    for difference in differences {
        if !difference.holds(base, &range, bytes)? {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}
