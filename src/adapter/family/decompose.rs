//! Weight decomposition, DoRA (Liu et al. 2024, <https://arxiv.org/abs/2402.09353>), over any family
//! that adds: (m / ‖V‖) · V with V = W + scale · Δ.
//!
//! PEFT (`tuners/lora/dora.py`) has a length for every output and no epsilon. LyCORIS
//! (`functional/general.py`, `_weight_decompose`) stores `dora_scale` as [out, 1, …] or as
//! [1, in, 1, …], and adds the f32 epsilon to ‖V‖.

use super::{Source, check_length};
use crate::adapter::convention::Part;
use crate::adapter::module::{Kind, Magnitude, Module, Side};
use crate::adapter::slice::find;
use crate::error::{ErrorKind, Locate, Result};

/// Gives a module the lengths that stand beside its tensors.
///
/// A DoRA config without them is incomplete.
pub(super) fn apply(mut module: Module, source: &Source<'_>) -> Result<Module> {
    let (peft, lycoris) = (source.parts.get(&Part::Magnitude), source.named("dora_scale"));
    let magnitude = match (peft, lycoris) {
        (Some(tensor), _) => {
            check_length(find(source.file, tensor)?, module.outputs)?;
            Magnitude { tensor: tensor.clone(), side: Side::Outputs, epsilon: 0.0 }
        }
        (None, Some(tensor)) => {
            let side = side(&module, source, tensor)?;
            Magnitude { tensor: tensor.to_owned(), side, epsilon: f64::from(f32::EPSILON) }
        }
        (None, None) if source.config.is_some_and(|config| config.dora) => {
            return Err(ErrorKind::MissingFactor {
                present: "A and B",
                missing: "magnitudes, which `use_dora` promises",
            }
            .into());
        }
        (None, None) => return Ok(module),
    };
    module.family = match module.family {
        "loha" => "loha-dora",
        "lokr" => "lokr-dora",
        _ => "dora",
    };
    module.magnitude = Some(magnitude);
    Ok(module)
}

/// Which side `dora_scale` belongs to, by its shape. A flat vector is an output's if it fits.
fn side(module: &Module, source: &Source<'_>, tensor: &str) -> Result<Side> {
    let shape = &source.view(tensor)?.spec.shape;
    let ones = |rest: &[usize]| rest.iter().all(|&size| size == 1);
    let channels = match &module.kind {
        Kind::Conv(kernel) => module.inputs / kernel.iter().product::<usize>().max(1),
        _ => module.inputs,
    };
    match shape.as_slice() {
        [outputs, rest @ ..] if *outputs == module.outputs && ones(rest) => Ok(Side::Outputs),
        // A convolution whose factors are flattened has fewer channels than inputs.
        [1, found, rest @ ..]
            if ones(rest)
                && (*found == channels
                    || (module.kind == Kind::Linear
                        && !rest.is_empty()
                        && channels % found == 0)) =>
        {
            Ok(Side::Inputs)
        }
        _ => {
            let (outputs, expected) = (module.outputs, channels);
            let expected = format!("[{outputs}, 1…] or [1, {expected}, 1…]");
            Err(ErrorKind::BadShape { expected, found: shape.clone() }).in_tensor(tensor)
        }
    }
}
