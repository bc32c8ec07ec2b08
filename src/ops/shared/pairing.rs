//! Which tensors of two checkpoints are the same one, for every verb that takes two: by what stands before their
//! names, and by what releases of transformers call the modules of a class.

use crate::adapter::unify;
use crate::error::Result;
use crate::format::Checkpoint;
use crate::weight::pair::{self, Pair, Paired};

/// Pairs all tensors of a base and of what was made of it.
///
/// # Errors
/// If a head cannot be read.
pub(in crate::ops) fn paired<'a>(
    base: &'a Checkpoint,
    tuned: &'a Checkpoint,
) -> Result<Paired<'a>> {
    let mut paired = Paired::new(base, tuned)?;
    let found = respelled((base, &paired.only_base), (tuned, &paired.only_tuned));
    let found: Vec<_> = found.into_iter().map(|(base, tuned)| Pair { base, tuned }).collect();
    paired.add(&found);
    Ok(paired)
}

/// How many of the base's tensors another checkpoint has, by their names alone.
pub(in crate::ops) fn shared(base: &Checkpoint, tuned: &Checkpoint) -> usize {
    match pair::shared(base, tuned) {
        0 => {
            let [first, second] =
                [base, tuned].map(|of| of.names().map(str::to_owned).collect::<Vec<_>>());
            respelled((base, &first), (tuned, &second)).len()
        }
        shared => shared,
    }
}

/// Tensors of the same shape that releases call otherwise.
fn respelled(
    (base, first): (&Checkpoint, &[String]),
    (tuned, second): (&Checkpoint, &[String]),
) -> Vec<(String, String)> {
    let shape = |checkpoint: &Checkpoint, name: &str| {
        checkpoint.tensor(name).map(|view| view.spec.shape.clone())
    };
    unify::respelled(first, second, &|a, b| shape(base, a) == shape(tuned, b))
}
