//! A fine-tuned checkpoint beside its base: which tensors are the same one, and which may differ.
//!
//! Its delta is TUNED − BASE, read panel by panel when it is merged.

use std::collections::{BTreeMap, BTreeSet};

use super::tied::{self, Tied};
use crate::adapter::tensor::element_type;
use crate::error::{ErrorKind, Locate, Result, TunedError, UnmatchedName};
use crate::format::{Checkpoint, TensorView};

/// How a tuned checkpoint calls the base's tensors: below another root, or just the same.
pub(super) struct Names<'a> {
    tuned: &'a Checkpoint,
    base: &'a Checkpoint,
    /// What its names have before those of the base, and the reverse; one of them is empty.
    root: (String, String),
}

impl<'a> Names<'a> {
    /// Takes the root with which most names agree.
    pub(super) fn new(base: &'a Checkpoint, tuned: &'a Checkpoint) -> Self {
        let mut roots = BTreeSet::from([(String::new(), String::new())]);
        // Roots are the same for all tensors, so a few tell them.
        let some = |checkpoint: &'a Checkpoint| {
            let step = (checkpoint.len() / 8).max(1);
            checkpoint.names().step_by(step)
        };
        for name in some(base) {
            let above = tuned.names().filter_map(|other| root_above(other, name));
            roots.extend(above.map(|root| (root.to_owned(), String::new())));
        }
        for name in some(tuned) {
            let above = base.names().filter_map(|other| root_above(other, name));
            roots.extend(above.map(|root| (String::new(), root.to_owned())));
        }
        // Sorted, so that plain names win where several roots agree with as many.
        let mut best = Self { tuned, base, root: (String::new(), String::new()) };
        let mut most = best.shared();
        for root in roots {
            let names = Self { tuned, base, root };
            let shared = names.shared();
            if shared > most {
                (best, most) = (names, shared);
            }
        }
        best
    }

    /// The tuned checkpoint's name of a base tensor.
    pub(super) fn of(&self, name: &str) -> Option<String> {
        let (tuned, base) = &self.root;
        Some(format!("{tuned}{}", name.strip_prefix(base.as_str())?))
    }

    fn view(&self, name: &str) -> Option<(String, TensorView<'a>)> {
        let own = self.of(name)?;
        let view = self.tuned.tensor(&own)?;
        Some((own, view))
    }

    /// How many of the base's tensors it has.
    pub(super) fn shared(&self) -> usize {
        self.base.names().filter(|name| self.view(name).is_some()).count()
    }
}

/// `model.` of `model.layers.0.weight` for `layers.0.weight`.
fn root_above<'n>(name: &'n str, below: &str) -> Option<&'n str> {
    let root = name.strip_suffix(below)?;
    root.ends_with(['.', '/']).then_some(root)
}

/// What a tuned checkpoint changes.
#[derive(Debug, Default)]
pub(super) struct Differences {
    /// Its tensor for each base tensor that may differ.
    pub(super) tensors: BTreeMap<String, String>,
    /// Its output head, where the base has only the embedding that is its head.
    pub(super) head: Option<Head>,
    /// Of its tensors, what the user left out.
    pub(super) left_out: usize,
    /// What it has beyond the base, if that was allowed.
    pub(super) unmatched: Vec<UnmatchedName>,
}

/// A tuned checkpoint's side of the base's tied pair.
#[derive(Debug, Clone)]
pub(super) struct Head {
    /// The tensor that is its head.
    pub(super) tensor: String,
    /// Whether it differs from its own embedding.
    pub(super) own: bool,
}

/// Lists the tensors in which a tuned checkpoint may differ from the base; `selected` says which the
/// user wants.
///
/// Equal bytes of floating-point tensors are only found when they are merged.
///
/// # Errors
/// Tensors that only one of the two has, unless that is allowed; other shapes; integers or codes
/// that differ, which no arithmetic can mix.
pub(super) fn differences(
    base: &Checkpoint,
    tuned: &Checkpoint,
    selected: &dyn Fn(&str) -> bool,
    allow_unmatched: bool,
) -> Result<Differences> {
    let names = Names::new(base, tuned);
    let own_tie = tied::find(tuned)?;
    let mut found = Differences::default();
    let (mut missing, mut used) = (Vec::new(), BTreeSet::new());
    for name in base.names() {
        let own = names.view(name).or_else(|| tied_view(tuned, own_tie.as_ref(), &names.of(name)?));
        let Some((own, view)) = own else {
            if selected(name) {
                missing.push(name.to_owned());
            }
            continue;
        };
        used.insert(own.clone());
        if !selected(name) {
            found.left_out += 1;
            continue;
        }
        let Some(base_view) = base.tensor(name) else { continue };
        if differs(base_view, view, name)? {
            found.tensors.insert(name.to_owned(), own);
        }
    }
    if let Some(tied) = tied::find(base)? {
        found.head = head(&names, &tied, selected)?;
        used.extend(found.head.as_ref().map(|head| head.tensor.clone()));
    }
    let extra: Vec<&str> =
        tuned.names().filter(|name| !used.contains(*name) && selected(name)).collect();
    if !allow_unmatched
        && let Some(first) = missing.first().map_or(extra.first().copied(), |name| Some(name))
    {
        return Err(TunedError::Differ {
            missing: missing.len(),
            extra: extra.len(),
            first: first.to_owned(),
        }
        .into());
    }
    let label = |name: &str| UnmatchedName { name: name.to_owned(), nearest: Vec::new() };
    found.unmatched =
        extra.into_iter().chain(missing.iter().map(String::as_str)).map(label).collect();
    Ok(found)
}

/// The embedding behind the head that a tuned checkpoint does not store.
fn tied_view<'a>(
    tuned: &'a Checkpoint,
    tied: Option<&Tied>,
    wanted: &str,
) -> Option<(String, TensorView<'a>)> {
    let tied = tied.filter(|tied| tied.head == wanted)?;
    Some((tied.embedding.clone(), tuned.tensor(&tied.embedding)?))
}

/// The tuned side of a pair that the base ties.
fn head(names: &Names<'_>, tied: &Tied, selected: &dyn Fn(&str) -> bool) -> Result<Option<Head>> {
    let Some((embedding, shared)) = names.view(&tied.embedding) else { return Ok(None) };
    let Some((tensor, view)) = names.view(&tied.head) else {
        return Ok(Some(Head { tensor: embedding, own: false }));
    };
    if !selected(&tied.head) {
        return Ok(None);
    }
    let own = !view.same_bytes(shared)?;
    if let Some(base) = names.base.tensor(&tied.embedding).filter(|_| own) {
        differs(base, view, &tied.head)?;
    }
    Ok(Some(Head { tensor, own }))
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
    if element_type(base.spec.dtype).is_some() && element_type(tuned.spec.dtype).is_some() {
        return Ok(true);
    }
    if base.same_bytes(tuned)? {
        return Ok(false);
    }
    let (base, tuned) = (base.spec.dtype.to_string(), tuned.spec.dtype.to_string());
    Err(TunedError::Codes { base, tuned }).in_tensor(name)
}
