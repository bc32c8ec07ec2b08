//! Values that take the base's place: which tensor they replace, how a vocabulary may grow, and what
//! happens when two adapters replace one tensor.

use super::binder::Binder;
use super::step::{Change, ReplaceStep, RowsStep, Step};
use crate::adapter::Adapter;
use crate::adapter::module::{Replacement, Replaces};
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::weight::as_matrix;
use crate::weight::element::float_type;

impl Binder<'_> {
    pub(in crate::ops::merge) fn add_replacement(
        &mut self,
        number: usize,
        adapter: &Adapter,
        replacement: &Replacement,
        name: &str,
        weight: f64,
    ) -> Result<()> {
        self.check_dtype(name)?;
        let values = adapter.file.tensor(&replacement.tensor).ok_or(ErrorKind::NotFound)?.spec;
        float_type(values.dtype)?;
        let (given, found) = (values.shape.clone(), self.stored(name)?.shape.clone());
        let step = ReplaceStep { adapter: number, tensor: replacement.tensor.clone(), weight };
        if let Replaces::Rows(rows) = &replacement.replaces {
            let (count, columns) = as_matrix(&found);
            if given.get(1) != Some(&columns) || rows.iter().any(|&row| row >= count) {
                return Err(mismatch(given, name, found));
            }
            let rows = rows.clone();
            self.change(name)?.add(Step::Rows(RowsStep { values: step, rows }));
            return Ok(());
        }
        if given != found {
            self.check_growth(&given, &found, name, weight)?;
            self.bound.grown.insert(name.to_owned(), given.first().copied().unwrap_or(0));
        }
        let (rows, columns) = as_matrix(&given);
        let change = self.change(name)?;
        (change.rows, change.columns) = (rows, columns);
        if change.replace().is_none() {
            change.add(Step::Replace(step));
        } else {
            self.contested.push((name.to_owned(), step));
        }
        Ok(())
    }

    /// A vocabulary may grow: the same width, more rows, replaced outright.
    fn check_growth(
        &self,
        given: &[usize],
        found: &[usize],
        name: &str,
        weight: f64,
    ) -> Result<()> {
        let vocabulary = is_vocabulary(name);
        match (given, found) {
            // Only an outright replacement can grow.
            ([more, width], [rows, same])
                if vocabulary && width == same && more > rows && weight == 1.0 =>
            {
                Ok(())
            }
            _ => Err(mismatch(given.to_vec(), name, found.to_vec())),
        }
    }

    /// A vocabulary that grows on one side only makes a model that does not load.
    pub(in crate::ops::merge) fn warn_of_half_grown(&mut self) {
        let Some(rows) = self.bound.grown.values().max() else { return };
        for name in self.base.names().filter(|name| is_vocabulary(name)) {
            let found = self.base.tensor(name).and_then(|view| view.spec.shape.first());
            let found = self.bound.grown.get(name).or(found);
            if let Some(found) = found.filter(|found| *found != rows) {
                self.bound.warnings.push(format!(
                    "the vocabulary grows to {rows}, but `{name}` has {found} rows: the model may not load"
                ));
            }
        }
    }

    /// Several adapters may replace one tensor only with the same bytes, and as strongly.
    pub(in crate::ops::merge) fn settle_contested(&self, adapters: &[Adapter]) -> Result<()> {
        for (name, second) in &self.contested {
            let first = self.bound.changes.get(name).and_then(Change::replace);
            let Some(first) = first else { continue };
            // Equal weights, as they were given.
            let same = first.weight == second.weight && same_bytes(adapters, first, second)?;
            if !same {
                let path = |step: &ReplaceStep| adapters.get(step.adapter).map(|a| a.path.clone());
                let (first, second) =
                    (path(first).unwrap_or_default(), path(second).unwrap_or_default());
                return Err(ErrorKind::ReplaceConflict { first, second }).in_tensor(name);
            }
        }
        Ok(())
    }
}

/// Whether a tensor's rows are the vocabulary's entries.
fn is_vocabulary(name: &str) -> bool {
    ["embed_tokens.weight", "lm_head.weight", "wte.weight", "word_embeddings.weight"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

fn mismatch(given: Vec<usize>, name: &str, found: Vec<usize>) -> Error {
    ErrorKind::ShapeMismatch { delta: given, base_tensor: name.to_owned(), found }.into()
}

/// Whether two steps put the same bytes in a tensor's place.
pub(in crate::ops::merge) fn same_bytes(
    adapters: &[Adapter],
    first: &ReplaceStep,
    second: &ReplaceStep,
) -> Result<bool> {
    let view = |step: &ReplaceStep| adapters.get(step.adapter)?.file.tensor(&step.tensor);
    let (Some(a), Some(b)) = (view(first), view(second)) else { return Ok(false) };
    a.same_bytes(b)
}
