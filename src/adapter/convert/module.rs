//! What the target can hold of one module: its tensors as they are, in its own form, its update as plain
//! factors, or nothing.

use super::goal::{FittedModule, Goal};
use super::stored::{
    added_bias, beside, called, differs, is_plain, magnitudes, no_such_factors, stored, translated,
};
use super::{native, rotations};
use crate::adapter::Adapter;
use crate::adapter::convention::{Part, ScalePlace};
use crate::adapter::module::{Kind, Module};
use crate::adapter::save::{NewModule, PartTensor, bias_part};
use crate::error::Result;
use crate::format::Dtype;

/// A module and its name at the target.
#[derive(Clone, Copy)]
pub(super) struct ModuleConversion<'a> {
    pub(super) adapter: &'a Adapter,
    pub(super) module: &'a Module,
    pub(super) name: &'a str,
    pub(super) goal: Goal<'a>,
}

/// A module's tensors, and what says its scale.
struct Held {
    tensors: Vec<PartTensor>,
    factored: Option<&'static str>,
    rank: usize,
    alpha: Option<f64>,
}

impl ModuleConversion<'_> {
    /// The first of the ways that the target can say; `None`, and why, if it is none.
    pub(super) fn fit(self, lost: &mut Vec<String>) -> Result<Option<FittedModule>> {
        let part = if self.module.form.is_part() { self.part_dtype() } else { None };
        let tensors = if part.is_some() { Vec::new() } else { stored(self.adapter, self.module)? };
        let held = if is_plain(self.module, &tensors) {
            self.plain(tensors, lost)?
        } else if let Some(held) = self.as_stored(part, &tensors)? {
            Some(held)
        } else {
            self.as_factors(part, &tensors, lost)?
        };
        Ok(held.map(|held| FittedModule {
            from: vec![self.module.name.clone()],
            name: self.name.to_owned(),
            rank: held.rank,
            scale: self.module.scale.value,
            alpha: held.alpha,
            tensors: held.tensors,
            factored: held.factored,
            folded: 1.0,
        }))
    }

    fn spells(self, part: Part) -> bool {
        self.goal.spells(self.name, part)
    }

    /// Whether the target has names for the module's factors.
    fn spells_factors(self) -> bool {
        let (down, up) = match self.module.kind {
            Kind::Embedding => (Part::EmbeddingDown, Part::EmbeddingUp),
            _ => (Part::Down, Part::Up),
        };
        self.spells(down) && self.spells(up)
    }

    /// The dtype of what the module has a part of.
    fn part_dtype(self) -> Option<Dtype> {
        Some(self.adapter.file.tensor(self.module.tensors().next()?)?.spec.dtype)
    }

    fn exact_alpha(self) -> Option<f64> {
        self.module.scale.exact_alpha(self.module.rank)
    }

    fn lose(self, what: &str, lost: &mut Vec<String>) {
        lost.push(format!("{}: {what}", self.module.name));
    }

    fn lose_all(self, reason: &str, lost: &mut Vec<String>) {
        self.lose(&format!("the whole of it; {reason}"), lost);
    }

    /// Plain factors stay what they are, beside what the target has a name for.
    fn plain(self, tensors: Vec<PartTensor>, lost: &mut Vec<String>) -> Result<Option<Held>> {
        let target = self.goal.target;
        if !self.spells_factors() {
            self.lose_all(&no_such_factors(target, self.module), lost);
            return Ok(None);
        }
        let mut carried = Vec::new();
        for tensor in tensors {
            match translated(self.module, tensor, target)? {
                Ok(tensor) if self.spells(tensor.0) => carried.push(tensor),
                Ok((part, ..)) | Err(part) => {
                    self.lose(&format!("its {}", called(part, self.module)), lost);
                }
            }
        }
        let (rank, alpha) = (self.module.rank, self.exact_alpha());
        Ok(Some(Held { tensors: carried, factored: None, rank, alpha }))
    }

    /// The family's own tensors, where the target has the family.
    fn as_stored(self, part: Option<Dtype>, tensors: &[PartTensor]) -> Result<Option<Held>> {
        let (from, target) = (self.adapter.convention, self.goal.target);
        let rank = self.module.rank;
        let spells_all =
            |tensors: &[PartTensor]| tensors.iter().all(|tensor| self.spells(tensor.0));
        if let Some(tensors) = rotations::unconstrained(self.module, tensors, target)? {
            return Ok(Some(Held { tensors, factored: None, rank, alpha: None }));
        }
        let both = from.scale == ScalePlace::Tensor && target.scale == ScalePlace::Tensor;
        if both && part.is_none() && spells_all(tensors) {
            let mut carried = tensors.to_vec();
            carried.extend(beside(self.adapter, self.module)?);
            let alpha = self.module.scale.alpha;
            return Ok(Some(Held { tensors: carried, factored: None, rank, alpha }));
        }
        let native = native::with_alpha(self.module, tensors, from, target)?;
        let native = native.filter(|tensors| spells_all(tensors));
        Ok(native.map(|tensors| Held { tensors, factored: None, rank, alpha: None }))
    }

    /// The update as plain factors, where it has exact ones.
    fn as_factors(
        self,
        part: Option<Dtype>,
        tensors: &[PartTensor],
        lost: &mut Vec<String>,
    ) -> Result<Option<Held>> {
        let (module, target) = (self.module, self.goal.target);
        // A decomposed sum has factors without its magnitudes, which stay as they are.
        let decomposed =
            magnitudes(module, tensors, target)?.filter(|tensor| self.spells(tensor.0));
        let sum = Module { magnitude: None, ..module.clone() };
        let summed = if decomposed.is_some() { &sum } else { module };
        let without = match self.adapter.check_factors(summed) {
            Err(error) => {
                let differs = differs(module, self.adapter.convention, target);
                Some(differs.unwrap_or_else(|| error.to_string()))
            }
            Ok(0) => Some("it changes a bias alone, which needs no factors".to_owned()),
            Ok(_) if !self.spells_factors() => Some(no_such_factors(target, module)),
            Ok(_) => None,
        };
        if let Some(reason) = without {
            self.lose_all(&reason, lost);
            return Ok(None);
        }
        let factors = self.adapter.factors(summed)?;
        let bias = self.bias(lost)?;
        // A part of a tensor is as it was; what is computed anew needs f32.
        let dtype = part.unwrap_or(Dtype::F32);
        let bias = bias.as_deref().map(|values| (bias_part(target), values));
        let scale = module.scale.value;
        let mut new = NewModule::new(self.name, &module.kind, &factors, scale, bias, dtype)?;
        new.tensors.extend(decomposed);
        let (factored, alpha) = match part {
            Some(_) => (None, self.exact_alpha()),
            None => (Some(module.family), None),
        };
        Ok(Some(Held { tensors: new.tensors, factored, rank: factors.rank(), alpha }))
    }

    /// What the module adds to the bias, as the target has it beside factors.
    fn bias(self, lost: &mut Vec<String>) -> Result<Option<Vec<f64>>> {
        if self.module.bias.is_none() {
            return Ok(None);
        }
        let part = bias_part(self.goal.target);
        let divided = if part == Part::UpBias { self.module.scale.value } else { 1.0 };
        match added_bias(self.adapter, self.module)? {
            Some(values) if self.spells(part) && divided != 0.0 => {
                Ok(Some(values.into_iter().map(|value| value / divided).collect()))
            }
            _ => {
                self.lose(&format!("its {}", called(Part::UpBias, self.module)), lost);
                Ok(None)
            }
        }
    }
}
