//! Shapes that an adapter leaves to the base (VeRA, MiSS): with a reference their updates have factors.

use std::path::Path;

use crate::adapter::module::{Kind, Module, Nature};
use crate::adapter::{Adapter, target};
use crate::error::{Locate, Result};
use crate::format::Access;
use crate::weight::open_reference;

/// Gives modules of unknown shape that of the reference's tensor, where they are for all of one, and those whose
/// factors are flattened over a convolution's kernel that kernel.
///
/// # Errors
/// Names that fit in several ways; a module that cannot be for a weight of that shape.
pub(crate) fn complete(adapter: &mut Adapter, reference: &Path, access: Access) -> Result<()> {
    if !adapter.modules.iter().any(|module| is_open(module) || is_flat(module)) {
        return Ok(());
    }
    let reference = open_reference(reference, access)?;
    let places = target::find(adapter, &reference, None)?.modules;
    let path = adapter.path.clone();
    for (module, places) in adapter.modules.iter_mut().zip(places) {
        let [place] = places.as_slice() else { continue };
        let shape = reference.tensor(&place.tensor).map(|view| view.spec.shape.as_slice());
        match shape {
            Some([rows, columns]) if is_open(module) && place.is_whole() => {
                let (outputs, inputs) =
                    if place.turned == Some(true) { (*columns, *rows) } else { (*rows, *columns) };
                module.form.check((outputs, inputs)).in_tensor(&module.name).in_file(&path)?;
                (module.outputs, module.inputs) = (outputs, inputs);
            }
            Some([rows, channels, kernel @ ..]) if is_flat(module) && place.is_whole() => {
                let inputs = channels * kernel.iter().product::<usize>();
                if !kernel.is_empty() && (module.outputs, module.inputs) == (*rows, inputs) {
                    module.kind = Kind::Conv(kernel.to_vec());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A sum whose size only the base tells.
fn is_open(module: &Module) -> bool {
    let adds = matches!(module.nature(), Nature::LowRank(_) | Nature::Dense);
    has_open_size(module) && module.kind == Kind::Linear && adds
}

/// A sum of known size that could be for a convolution: LoRA's own factors would have its kernel.
fn is_flat(module: &Module) -> bool {
    let adds = matches!(module.nature(), Nature::LowRank(rank) if rank > 0);
    !module.form.has_kernel() && !has_open_size(module) && module.kind == Kind::Linear && adds
}

fn has_open_size(module: &Module) -> bool {
    module.outputs == 0 || module.inputs == 0
}
