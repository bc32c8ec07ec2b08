//! A module as factors in the target's spelling, whichever family it was.

use super::fold::Factor;
use super::goal::Goal;
use super::stored::{self, FACTORS, called, is_bias, is_factor, is_magnitude};
use crate::adapter::Adapter;
use crate::adapter::convention::Part;
use crate::adapter::module::{Module, Side};
use crate::adapter::save::{NewModule, PartTensor};
use crate::error::Result;
use crate::format::Dtype;

/// A module as factors in the target's spelling, whichever family it was.
pub(super) struct Factors {
    pub(super) down: PartTensor,
    pub(super) up: PartTensor,
    pub(super) bias: Option<PartTensor>,
    pub(super) magnitude: Option<PartTensor>,
    pub(super) rank: usize,
    pub(super) scale: f64,
    pub(super) alpha: Option<f64>,
    pub(super) factored: Option<&'static str>,
}

/// A module's factors, bias and magnitudes; nothing if it cannot be divided.
pub(super) fn factors_of(
    adapter: &Adapter,
    goal: Goal<'_>,
    module: &Module,
    name: &str,
    lost: &mut Vec<String>,
) -> Result<Option<Factors>> {
    let mut tensors = stored::stored(adapter, module)?;
    let alpha = module.scale.exact_alpha(module.rank);
    let (mut rank, mut factored) = (module.rank, None);
    let inputs = module.magnitude.as_ref().is_some_and(|found| found.side == Side::Inputs);
    if inputs || (!stored::is_plain(module, &tensors) && adapter.check_factors(module).is_err()) {
        lost.push(format!(
            "{}: the whole of it, a {} module in one piece",
            module.name, module.family
        ));
        return Ok(None);
    }
    if !stored::is_plain(module, &tensors) {
        let factors = adapter.factors(module)?;
        let new = NewModule::new(name, &module.kind, &factors, 1.0, None, Dtype::F32)?;
        tensors.retain(|(part, ..)| is_bias(*part));
        tensors.extend(new.tensors);
        (rank, factored) = (factors.rank(), Some(module.family));
    }
    let mut spelled = Vec::new();
    for tensor in tensors {
        match stored::translated(module, tensor, goal.target)? {
            Ok(tensor) if goal.spells(name, tensor.0) => spelled.push(tensor),
            Ok((part, ..)) | Err(part) => {
                lost.push(format!("{}: its {}", module.name, called(part, module)));
            }
        }
    }
    let mut take = |fits: &dyn Fn(Part) -> bool| {
        let at = spelled.iter().position(|(part, ..)| fits(*part))?;
        Some(spelled.remove(at))
    };
    let down = take(&|part| FACTORS.iter().any(|(down, _)| part == *down));
    let up = take(&is_factor);
    let (bias, magnitude) = (take(&is_bias), take(&is_magnitude));
    let (Some(down), Some(up)) = (down, up) else { return Ok(None) };
    let (scale, alpha) = (module.scale.value, alpha.filter(|_| factored.is_none()));
    Ok(Some(Factors { down, up, bias, magnitude, rank, scale, alpha, factored }))
}

/// A stored tensor as a factor.
pub(super) fn factor((_, dtype, shape, bytes): &PartTensor) -> Factor {
    Factor { dtype: *dtype, shape: shape.clone(), bytes: bytes.clone() }
}

/// A factor as a stored tensor.
pub(super) fn tensor(part: Part, factor: Factor) -> PartTensor {
    (part, factor.dtype, factor.shape, factor.bytes)
}
