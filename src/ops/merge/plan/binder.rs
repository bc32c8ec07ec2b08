//! The plan in the making: the changes so far, and what every step that adds to them asks of the base.

use std::collections::BTreeMap;

use super::step::{Added, Change, ReplaceStep};
use crate::adapter::place::Placement;
use crate::error::{ErrorKind, Locate, Result, UnmatchedName};
use crate::format::{Checkpoint, TensorSpec};
use crate::ops::merge::{Options, PlannedAdapter};
use crate::ops::shared::selection::Usage;
use crate::weight::element::is_float;
use crate::weight::tied::{self, Tied};
use crate::weight::{as_matrix, quantisation};

/// All changes, and what they mean for the rest of the output.
#[derive(Debug)]
pub(in crate::ops::merge) struct Bound {
    /// By (component-prefixed) base tensor name.
    pub(in crate::ops::merge) changes: BTreeMap<String, Change>,
    /// A tied pair that the result stores as two.
    pub(in crate::ops::merge) untied: Option<Tied>,
    /// Tensors whose first dimension grows, with the new size.
    pub(in crate::ops::merge) grown: BTreeMap<String, usize>,
    /// Tensors that the base has not.
    pub(in crate::ops::merge) added: Vec<Added>,
    pub(in crate::ops::merge) adapters: Vec<PlannedAdapter>,
    pub(in crate::ops::merge) unmatched: Vec<UnmatchedName>,
    pub(in crate::ops::merge) warnings: Vec<String>,
    /// Which of the options about modules have decided something.
    pub(in crate::ops::merge) usage: Usage,
}

pub(in crate::ops::merge) struct Binder<'a> {
    pub(in crate::ops::merge) options: &'a Options,
    pub(in crate::ops::merge) base: &'a Checkpoint,
    pub(in crate::ops::merge) tied: Option<Tied>,
    /// Second and further replacements of one tensor.
    pub(in crate::ops::merge) contested: Vec<(String, ReplaceStep)>,
    pub(in crate::ops::merge) bound: Bound,
}

impl<'a> Binder<'a> {
    pub(in crate::ops::merge) fn new(options: &'a Options, base: &'a Checkpoint) -> Result<Self> {
        Ok(Self {
            options,
            base,
            tied: tied::find(base)?,
            contested: Vec::new(),
            bound: Bound {
                changes: BTreeMap::new(),
                untied: None,
                grown: BTreeMap::new(),
                added: Vec::new(),
                adapters: Vec::new(),
                unmatched: Vec::new(),
                warnings: Vec::new(),
                usage: Usage::default(),
            },
        })
    }
}

impl Binder<'_> {
    /// The stored tensor behind a name: the name's own, or the embedding behind a tied head.
    pub(in crate::ops::merge) fn stored(&self, name: &str) -> Result<&TensorSpec> {
        let behind = match &self.tied {
            Some(tied) if tied.head == name => tied.embedding.as_str(),
            _ => name,
        };
        let view = self.base.tensor(behind);
        view.map(|view| view.spec).ok_or(ErrorKind::NotFound).in_tensor(name)
    }

    pub(in crate::ops::merge) fn check_dtype(&self, name: &str) -> Result<()> {
        if let Some(scheme) = quantisation(self.base, name) {
            return Err(ErrorKind::Quantised { base_tensor: name.to_owned(), scheme }.into());
        }
        let dtype = self.stored(name)?.dtype;
        if !is_float(dtype) {
            let (base_tensor, dtype) = (name.to_owned(), dtype.to_string());
            return Err(ErrorKind::TargetDtype { base_tensor, dtype }.into());
        }
        Ok(())
    }

    pub(in crate::ops::merge) fn change(&mut self, name: &str) -> Result<&mut Change> {
        let shape = self.stored(name)?.shape.clone();
        let empty = Change::new(as_matrix(&shape));
        Ok(self.bound.changes.entry(name.to_owned()).or_insert(empty))
    }
}

/// By base tensor, the places in it that modules of one adapter have, and whose they are.
pub(in crate::ops::merge) type Owners = BTreeMap<String, Vec<(Placement, String)>>;

/// Takes a place for a module; another one of the adapter must not have any of it.
pub(in crate::ops::merge) fn claim(
    owners: &mut Owners,
    place: &Placement,
    module: &str,
) -> Result<()> {
    let taken = owners.entry(place.tensor.clone()).or_default();
    if let Some((_, first)) = taken.iter().find(|(other, _)| other.meets(place)) {
        let (first, second) = (first.clone(), module.to_owned());
        return Err(ErrorKind::SameTarget { first, second }).in_tensor(&place.tensor);
    }
    taken.push((place.clone(), module.to_owned()));
    Ok(())
}
