//! DoRA (Liu et al. 2024, <https://arxiv.org/abs/2402.09353>): (m / ‖V‖) · V with V = W + scale·B·A,
//! the norm over everything but the output axis, as PEFT has it (`tuners/lora/dora.py`), without an
//! epsilon.

use super::Parts;
use super::lora::{check_length, view};
use crate::adapter::convention::Part;
use crate::adapter::module::{Family, Module};
use crate::error::{ErrorKind, Result};
use crate::format::Checkpoint;

/// Turns a LoRA module into a DoRA one if it has magnitudes.
///
/// `expected` is what the config says: a DoRA config without magnitudes is incomplete.
pub(crate) fn apply(
    mut module: Module,
    parts: &Parts,
    file: &Checkpoint,
    expected: bool,
) -> Result<Module> {
    match parts.get(&Part::Magnitude) {
        Some(magnitude) => {
            check_length(view(file, magnitude)?, module.outputs)?;
            module.magnitude = Some(magnitude.clone());
            module.family = Family::Dora;
            Ok(module)
        }
        None if expected => Err(ErrorKind::MissingFactor {
            present: "A and B",
            missing: "the magnitudes that `use_dora` promises",
        }
        .into()),
        None => Ok(module),
    }
}
