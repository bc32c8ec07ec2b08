//! How a module's update lies in its base tensor, and which steps of the tensor's change it becomes.

use super::bind::Binder;
use super::change::{Source, Term, TransformStep};
use super::update::{kernel_sized, sides};
use crate::adapter::module::{BiasEffect, Kind, Module, Nature};
use crate::error::{ErrorKind, FamilyError, Result};

impl Binder<'_> {
    pub(super) fn add_module(
        &mut self,
        (adapter, index): (usize, usize),
        module: &Module,
        name: &str,
        weight: f64,
        transposed: bool,
    ) -> Result<()> {
        let term = |source, coefficient| Term { adapter, module: index, source, coefficient };
        let scale = module.scale.value;
        // A module may be of the bias alone.
        if module.nature() != Nature::LowRank(0) {
            self.check_dtype(name)?;
            let source = self.orientation(module, name, transposed)?;
            let change = self.change(name)?;
            module.form.check(sides(module, source, (change.rows, change.columns)))?;
            if change.transform.is_some() {
                return Err(FamilyError::Order.into());
            }
            match module.nature() {
                Nature::Dependent => {
                    change.transform = Some(TransformStep { term: term(source, scale), weight });
                }
                Nature::LowRank(rank) if kernel_sized(rank) => {
                    change.terms.push(term(source, weight * scale));
                }
                Nature::LowRank(_) | Nature::Full => {
                    change.additions.push(term(source, weight * scale));
                }
            }
        }
        self.add_bias(module, name, weight, term(Source::Bias, 1.0))
    }

    /// What a module does to its layer's bias.
    fn add_bias(&mut self, module: &Module, name: &str, weight: f64, term: Term) -> Result<()> {
        let Some(own) = &module.bias else { return Ok(()) };
        let name = bias_of(name);
        let found = self.base.tensor(&name).map(|view| view.spec.shape.clone());
        if found.is_none() && own.effect == BiasEffect::Multiply {
            return Ok(());
        }
        if found.as_deref() != Some([own.length].as_slice()) {
            return Err(ErrorKind::ShapeMismatch {
                delta: vec![own.length],
                base_tensor: name,
                found: found.unwrap_or_default(),
            }
            .into());
        }
        self.check_dtype(&name)?;
        let change = self.change(&name)?;
        if change.transform.is_some() {
            return Err(FamilyError::Order.into());
        }
        match (own.effect, module.added_bias()) {
            (BiasEffect::Multiply, _) => change.transform = Some(TransformStep { term, weight }),
            (_, added) => {
                let scale = added.map_or(1.0, |(_, scale)| scale);
                change.terms.push(Term { coefficient: weight * scale, ..term });
            }
        }
        Ok(())
    }

    /// How the module's update lies in the stored tensor; an error if it does not fit at all.
    fn orientation(&self, module: &Module, name: &str, square_transposed: bool) -> Result<Source> {
        let found = &self.stored(name)?.shape;
        match fit(module, found) {
            Fit { straight: true, .. } if module.kind == Kind::Embedding => Ok(Source::Transposed),
            Fit { straight: true, turned: true } if square_transposed => Ok(Source::Transposed),
            Fit { straight: true, .. } => Ok(Source::Product),
            Fit { turned: true, .. } => Ok(Source::Transposed),
            _ => Err(ErrorKind::ShapeMismatch {
                delta: module.shape(),
                base_tensor: name.to_owned(),
                found: found.clone(),
            }
            .into()),
        }
    }
}

/// Which ways round a module fits a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fit {
    pub(super) straight: bool,
    pub(super) turned: bool,
}

/// Compares a module's sizes, as far as its tensors tell them, with a stored shape.
pub(super) fn fit(module: &Module, found: &[usize]) -> Fit {
    let is = |known: usize, size: usize| known == 0 || known == size;
    let flat = |outputs: usize, rest: &[usize]| {
        is(module.outputs, outputs) && is(module.inputs, rest.iter().product())
    };
    let (straight, turned) = match (&module.kind, found) {
        (Kind::Whole(shape), _) => (shape == found, false),
        (Kind::Embedding, _) => (found == module.shape(), false),
        (Kind::Linear, [rows, columns]) => {
            (flat(*rows, &[*columns]), is(module.outputs, *columns) && is(module.inputs, *rows))
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
    format!("{}.bias", weight.strip_suffix(".weight").unwrap_or(weight))
}
