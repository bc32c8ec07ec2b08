//! Shapes that an adapter leaves to the base (VeRA, MiSS): with a reference their updates have factors.

use std::path::Path;

use crate::adapter::module::{Kind, Module, Nature};
use crate::adapter::{Adapter, target};
use crate::error::{Locate, Result};
use crate::format::Access;
use crate::weight::open_reference;

/// Gives modules of unknown shape that of the reference's tensor, where they are for all of one.
///
/// # Errors
/// Names that fit in several ways; a module that cannot be for a weight of that shape.
pub(crate) fn complete(adapter: &mut Adapter, reference: &Path, access: Access) -> Result<()> {
    if !adapter.modules.iter().any(is_open) {
        return Ok(());
    }
    let reference = open_reference(reference, access)?;
    let places = target::find(adapter, &reference, None)?.modules;
    let path = adapter.path.clone();
    for (module, places) in adapter.modules.iter_mut().zip(places) {
        let [place] = places.as_slice() else { continue };
        let shape = reference.tensor(&place.tensor).map(|view| view.spec.shape.as_slice());
        let (true, true, Some([rows, columns])) = (is_open(module), place.is_whole(), shape) else {
            continue;
        };
        let (outputs, inputs) =
            if place.turned == Some(true) { (*columns, *rows) } else { (*rows, *columns) };
        module.form.check((outputs, inputs)).in_tensor(&module.name).in_file(&path)?;
        (module.outputs, module.inputs) = (outputs, inputs);
    }
    Ok(())
}

/// A sum whose size only the base tells.
fn is_open(module: &Module) -> bool {
    let unknown = module.outputs == 0 || module.inputs == 0;
    let adds = matches!(module.nature(), Nature::LowRank(_) | Nature::Dense);
    unknown && module.kind == Kind::Linear && adds
}
