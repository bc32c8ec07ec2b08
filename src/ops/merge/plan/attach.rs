//! How a module's update lies in its base tensor, and which steps of the tensor's change it becomes.

use super::binder::Binder;
use super::region::Region;
use super::sides::{kernel_sized, sides};
use super::step::{Change, Step, Term, TermForm};
use crate::adapter::module::{Kind, Module, Nature, Side};
use crate::adapter::orientation::{undecided, ways};
use crate::adapter::place::Placement;
use crate::adapter::slice::Span;
use crate::error::{ErrorKind, FamilyError, Result};

impl Binder<'_> {
    pub(in crate::ops::merge) fn add_module(
        &mut self,
        (adapter, index): (usize, usize),
        module: &Module,
        place: &Placement,
        weight: f64,
    ) -> Result<()> {
        let name = place.tensor.as_str();
        let scale = module.scale.value;
        // A module may be of the bias alone.
        if module.nature() != Nature::LowRank(0) {
            self.check_dtype(name)?;
            let stored = self.stored(name)?.shape.clone();
            let source = self.orientation(module, place, &stored)?;
            let region = Region::of(place, &stored);
            let change = self.change_at(place)?;
            let size = (change.rows, change.columns);
            let own = region.as_ref().map_or(size, |region| region.size(size));
            module.form.check(sides(module, source, own))?;
            check_reordered(module, source, place)?;
            if change.is_transformed(region.as_ref()) {
                return Err(FamilyError::Order.into());
            }
            let nature = module.nature();
            if nature == Nature::Dependent {
                check_part(module, source, region.as_ref())?;
            }
            let term = Term { adapter, module: index, source, weight, scale, region };
            change.add(match nature {
                Nature::Dependent => Step::Transform(term),
                Nature::LowRank(rank) if kernel_sized(rank) => Step::Factors(term),
                Nature::LowRank(_) | Nature::Full | Nature::Dense => Step::Rowwise(term),
            });
        }
        self.add_bias((adapter, index), module, place, weight)
    }

    /// What a module does to its layer's bias.
    fn add_bias(
        &mut self,
        (adapter, index): (usize, usize),
        module: &Module,
        place: &Placement,
        weight: f64,
    ) -> Result<()> {
        let Some(own) = &module.bias else { return Ok(()) };
        if place.heads.is_some() {
            return Err(FamilyError::Reordered { family: module.family }.into());
        }
        let name = bias_of(&place.tensor);
        let found = self.base.tensor(&name).map(|view| view.spec.shape.clone());
        if found.is_none() && own.effect.transforms() {
            return Ok(());
        }
        if place.expert.is_some() || place.columns.is_some() {
            return Err(FamilyError::Part { family: module.family }.into());
        }
        let wanted = match (&place.part, &place.rows) {
            (Some(part), _) => part.of,
            (None, Some(rows)) => rows.len(),
            (None, None) => found.as_ref().and_then(|shape| shape.first().copied()).unwrap_or(0),
        };
        // One number for all is for a bias of any length.
        let fits = matches!(found.as_deref(), Some([_])) && [0, wanted].contains(&own.length);
        if !fits {
            return Err(ErrorKind::ShapeMismatch {
                delta: vec![own.length],
                base_tensor: name,
                found: found.unwrap_or_default(),
            }
            .into());
        }
        self.check_dtype(&name)?;
        let region = (!place.is_whole()).then(|| Region {
            rows: 0..1,
            columns: place.rows.as_ref().map(|rows| Span {
                first: rows.start,
                step: 1,
                count: rows.len(),
            }),
            part: place.part.as_ref().map(|part| part.rows.clone()),
            heads: None,
        });
        let change = self.change(&name)?;
        if change.is_transformed(region.as_ref()) {
            return Err(FamilyError::Order.into());
        }
        let transforms = own.effect.transforms();
        if transforms && region.is_some() {
            return Err(FamilyError::Part { family: module.family }.into());
        }
        let scale = module.added_bias().filter(|_| !transforms).map_or(1.0, |(_, scale)| scale);
        let source = TermForm::Bias;
        let term = Term { adapter, module: index, source, weight, scale, region };
        change.add(if transforms { Step::Transform(term) } else { Step::Factors(term) });
        Ok(())
    }

    /// The change of a placement's tensor, which a stack sees as all its matrices' rows.
    fn change_at(&mut self, place: &Placement) -> Result<&mut Change> {
        let shape = self.stored(&place.tensor)?.shape.clone();
        let change = self.change(&place.tensor)?;
        if let (Some(_), [experts, rows, columns]) = (place.expert, shape.as_slice()) {
            if change.is_empty() {
                (change.rows, change.columns) = (experts * rows, *columns);
            }
            if (change.rows, change.columns) != (experts * rows, *columns) {
                return Err(FamilyError::Order.into());
            }
        }
        Ok(change)
    }

    /// How the module's update lies in the stored tensor; an error if it does not fit at all.
    fn orientation(
        &self,
        module: &Module,
        place: &Placement,
        stored: &[usize],
    ) -> Result<TermForm> {
        let fit = fit(module, &place.shape(stored));
        match (fit, place.turned) {
            (Fit { straight: true, .. }, _) if module.kind == Kind::Embedding => {
                Ok(TermForm::Transposed)
            }
            (Fit { straight: true, turned: true }, None) => Err(undecided(&place.tensor)),
            (Fit { straight: true, turned: true }, Some(true)) => Ok(TermForm::Transposed),
            (Fit { straight: true, .. }, _) => Ok(TermForm::Product),
            (Fit { turned: true, .. }, _) => Ok(TermForm::Transposed),
            _ => Err(ErrorKind::ShapeMismatch {
                delta: module.shape(),
                base_tensor: place.to_string(),
                found: stored.to_vec(),
            }
            .into()),
        }
    }
}

/// An update that depends on the weight needs all of the weight it was trained on, or only single
/// rows of it.
fn check_part(module: &Module, source: TermForm, region: Option<&Region>) -> Result<()> {
    let Some(region) = region else { return Ok(()) };
    let by_rows = match &module.magnitude {
        Some(magnitude) => magnitude.side == Side::Outputs && source == TermForm::Product,
        None => false,
    };
    if region.columns.is_none() && (region.part.is_none() || by_rows) {
        return Ok(());
    }
    Err(FamilyError::Part { family: module.family }.into())
}

/// Rows that llama.cpp reorders are reordered in the factors of an update, and nowhere else.
fn check_reordered(module: &Module, source: TermForm, place: &Placement) -> Result<()> {
    let factors = matches!(module.nature(), Nature::LowRank(rank) if kernel_sized(rank));
    if place.heads.is_none() || factors && source == TermForm::Product {
        return Ok(());
    }
    Err(FamilyError::Reordered { family: module.family }.into())
}

/// Which ways round a module fits a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops::merge) struct Fit {
    pub(in crate::ops::merge) straight: bool,
    pub(in crate::ops::merge) turned: bool,
}

/// Compares a module's sizes, as far as its tensors tell them, with a stored shape.
pub(in crate::ops::merge) fn fit(module: &Module, found: &[usize]) -> Fit {
    let is = |known: usize, size: usize| known == 0 || known == size;
    let flat = |outputs: usize, rest: &[usize]| {
        is(module.outputs, outputs) && is(module.inputs, rest.iter().product())
    };
    let (straight, turned) = match (&module.kind, found) {
        (Kind::Whole(shape), _) => (shape == found, false),
        (Kind::Embedding, _) => (found == module.shape(), false),
        (Kind::Linear, [_, _]) => ways(module, found).unwrap_or_default(),
        (Kind::Channels, [rows, columns, _, ..]) => {
            (is(module.outputs, *rows) && is(module.inputs, *columns), false)
        }
        // Flattened factors of a convolution; what a grouped one's inputs are, its weight says.
        (Kind::Linear, [rows, rest @ ..]) => (flat(*rows, rest) && rest.len() > 1, false),
        (Kind::Conv(kernel), [rows, columns, own @ ..]) => {
            let ones = |sizes: &[usize]| sizes.iter().all(|size| *size == 1);
            // Kernels of one dimension are sometimes stored with a second of 1.
            let (longer, shorter) = if own.len() > kernel.len() {
                (own, kernel.as_slice())
            } else {
                (kernel.as_slice(), own)
            };
            let same =
                longer.starts_with(shorter) && ones(longer.get(shorter.len()..).unwrap_or(&[]));
            let channels = module.inputs / kernel.iter().product::<usize>().max(1);
            (same && is(module.outputs, *rows) && is(channels, *columns), false)
        }
        _ => (false, false),
    };
    Fit { straight, turned }
}

fn bias_of(weight: &str) -> String {
    match weight.strip_suffix("in_proj_weight") {
        Some(above) => format!("{above}in_proj_bias"),
        None => format!("{}.bias", weight.strip_suffix(".weight").unwrap_or(weight)),
    }
}
