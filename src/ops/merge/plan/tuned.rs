//! A fine-tuned checkpoint beside its base: which of its tensors may differ, and what a merge can follow.
//!
//! Its delta is TUNED − BASE, read panel by panel when it is merged.

use std::collections::BTreeMap;

use super::step::Difference;
use crate::error::{ErrorKind, Locate, Result, TunedError, UnmatchedName};
use crate::format::{Checkpoint, TensorView};
use crate::ops::shared::pairing;
use crate::weight::difference::Tuned;
use crate::weight::element::is_float;
use crate::weight::pair::{Head, Pair};

/// What a tuned checkpoint changes.
#[derive(Debug, Default)]
pub(in crate::ops::merge) struct Differences {
    /// Its tensor for each base tensor that may differ.
    pub(in crate::ops::merge) tensors: BTreeMap<String, String>,
    /// Its output head, where the base has only the embedding that is its head.
    pub(in crate::ops::merge) head: Option<Head>,
    /// Of its tensors, what the user left out.
    pub(in crate::ops::merge) left_out: usize,
    /// What it has beyond the base, if that was allowed.
    pub(in crate::ops::merge) unmatched: Vec<UnmatchedName>,
}

/// Finds the tensors of all differences of a change.
pub(in crate::ops) fn find<'s, 'a>(
    differences: impl IntoIterator<Item = &'s Difference>,
    tuned: &'a [Checkpoint],
) -> Result<Vec<Tuned<'a>>> {
    let find = |step: &Difference| {
        let view = tuned.get(step.tuned).and_then(|tuned| tuned.tensor(&step.tensor));
        let view = view.ok_or(ErrorKind::NotFound).in_tensor(&step.tensor)?;
        Ok(Tuned::new(view, step.weight))
    };
    differences.into_iter().map(find).collect()
}

/// Lists the tensors in which a tuned checkpoint may differ from the base; `selected` says which the
/// user wants.
///
/// Equal bytes of floating-point tensors are only found when they are merged.
///
/// # Errors
/// Tensors that only one of the two has, unless that is allowed; other shapes; integers or codes
/// that differ, which no arithmetic can mix.
pub(in crate::ops::merge) fn differences(
    base: &Checkpoint,
    tuned: &Checkpoint,
    selected: &dyn Fn(&str) -> bool,
    allow_unmatched: bool,
) -> Result<Differences> {
    let paired = pairing::paired(base, tuned)?;
    let mut found = Differences::default();
    for pair in &paired.pairs {
        if !selected(&pair.base) {
            found.left_out += 1;
            continue;
        }
        let (base, tuned) = paired.views(pair)?;
        if differs(base, tuned, &pair.base)? {
            found.tensors.insert(pair.base.clone(), pair.tuned.clone());
        }
    }
    found.head = paired.head.clone().filter(|head| selected(&head.name));
    if let Some(head) = found.head.as_ref().filter(|head| head.parted) {
        let pair = Pair { base: head.embedding.clone(), tuned: head.tuned.clone() };
        let (base, tuned) = paired.views(&pair)?;
        differs(base, tuned, &head.name)?;
    }
    let of_user = |names: Vec<String>| -> Vec<String> {
        names.into_iter().filter(|name| selected(name)).collect()
    };
    let (missing, extra) = (of_user(paired.only_base), of_user(paired.only_tuned));
    if !allow_unmatched && let Some(first) = missing.first().or(extra.first()) {
        let first = first.clone();
        return Err(TunedError::Differ { missing: missing.len(), extra: extra.len(), first }.into());
    }
    let label = |name: String| UnmatchedName { name, nearest: Vec::new() };
    found.unmatched = extra.into_iter().chain(missing).map(label).collect();
    Ok(found)
}

/// Whether two tensors may differ; an error if they do in a way that no merge can follow.
fn differs(base: TensorView<'_>, tuned: TensorView<'_>, name: &str) -> Result<bool> {
    if base.spec.shape != tuned.spec.shape {
        return Err(ErrorKind::ShapeMismatch {
            delta: tuned.spec.shape.clone(),
            base_tensor: name.to_owned(),
            found: base.spec.shape.clone(),
        }
        .into());
    }
    if is_float(base.spec.dtype) && is_float(tuned.spec.dtype) {
        return Ok(true);
    }
    if base.same_bytes(tuned)? {
        return Ok(false);
    }
    let (base, tuned) = (base.spec.dtype.to_string(), tuned.spec.dtype.to_string());
    Err(TunedError::Codes { base, tuned }).in_tensor(name)
}
