//! Which modules of an adapter have a place in a base that they do not fit, for verbs that only look: the very
//! tests that a merge makes, every module's result instead of the first error.

use super::binder::{Binder, Owners, claim};
use crate::adapter::Adapter;
use crate::adapter::target::Targets;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Checkpoint;
use crate::ops::merge::Options;

/// A module or replacement that does not fit where its name leads.
#[derive(Debug)]
pub(in crate::ops) struct Misfit {
    /// Its name.
    pub(in crate::ops) name: String,
    /// What does not fit.
    pub(in crate::ops) error: Error,
}

/// Tries every module and replacement of an adapter in the places that its names lead to.
///
/// That a weight is stored in a dtype that nothing can be added to is no misfit: programs add the update to
/// the layer's output. Nor is a square weight that may be stored either way round.
///
/// # Errors
/// If the base has a config that cannot be read.
pub(in crate::ops) fn misfits(
    adapter: &Adapter,
    base: &Checkpoint,
    targets: &Targets,
) -> Result<Vec<Misfit>> {
    let options = Options::default();
    let mut binder = Binder::new(&options, base)?;
    let mut owners = Owners::new();
    let mut misfits = Vec::new();
    let mut note = |name: String, error: Error| {
        let stored = matches!(
            error.kind(),
            ErrorKind::Quantised { .. }
                | ErrorKind::TargetDtype { .. }
                | ErrorKind::Orientation { .. }
        );
        if !stored {
            misfits.push(Misfit { name, error });
        }
    };
    for (index, (module, places)) in adapter.modules.iter().zip(&targets.modules).enumerate() {
        let fits = places.iter().try_for_each(|place| {
            claim(&mut owners, place, &module.name)?;
            binder.add_module((0, index), module, place, 1.0)
        });
        if let Err(error) = fits {
            note(module.name.clone(), error);
        }
    }
    for (replacement, name) in adapter.replacements.iter().zip(&targets.replacements) {
        let Some(name) = name else { continue };
        if let Err(error) = binder.add_replacement(0, adapter, replacement, name, 1.0) {
            note(replacement.label(), error);
        }
    }
    Ok(misfits)
}

/// How many do not fit, of how many modules and replacements, and what is wrong with the first; `None` if all fit.
pub(in crate::ops) fn summary(misfits: &[Misfit], adapter: &Adapter) -> Option<String> {
    let Misfit { name, error } = misfits.first()?;
    let (count, all) = (misfits.len(), adapter.modules.len() + adapter.replacements.len());
    let error = error.kind();
    Some(format!("{count} of {all} modules do not fit the base, such as `{name}`: {error}"))
}
