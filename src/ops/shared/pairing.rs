//! Which tensors of two checkpoints are the same one, for every verb that takes two: by what stands before their
//! names, and by what releases of transformers call the modules of a class.

use crate::adapter::unify;
use crate::error::Result;
use crate::format::Checkpoint;
use crate::weight::pair::{Pair, Paired};

/// Pairs all tensors of a base and of what was made of it.
///
/// # Errors
/// If a head cannot be read.
pub(in crate::ops) fn paired<'a>(
    base: &'a Checkpoint,
    tuned: &'a Checkpoint,
) -> Result<Paired<'a>> {
    let mut paired = Paired::new(base, tuned)?;
    let shape = |checkpoint: &'a Checkpoint, name: &str| {
        checkpoint.tensor(name).map(|view| view.spec.shape.as_slice())
    };
    let alike = |a: &str, b: &str| shape(base, a) == shape(tuned, b);
    let found = unify::respelled(&paired.only_base, &paired.only_tuned, &alike);
    paired.add(found.into_iter().map(|(base, tuned)| Pair { base, tuned }).collect());
    Ok(paired)
}
