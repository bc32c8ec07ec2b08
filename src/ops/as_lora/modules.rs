//! What a module of the plan is besides its factors: zeros in its place, its own tensors, its bias.

use super::open::AsLora;
use super::options::DTYPE;
use super::origin::{Origin, Planned};
use crate::adapter::save::{NewModule, PartTensor, bias_part};
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, Locate, Result};
use crate::math::linalg::panels::Panels;
use crate::math::{LowRank, Matrix};
use crate::ops::merge::compute::module_delta::TransformedPlace;

impl Planned {
    /// A module of rank 1 that is zero, in place of what will be written.
    pub(super) fn zero(&self, plan: &AsLora) -> Result<NewModule> {
        if matches!(self.origin, Origin::Kept) {
            return self.kept(plan);
        }
        let name = &plan.module(self)?.name;
        let factors = LowRank::new(Matrix::zeros(self.size.0, 1), Matrix::zeros(1, self.size.1));
        let zeros = vec![0.0; self.size.0];
        let bias = self.changes_bias(plan)?.then(|| (bias_part(plan.native), zeros.as_slice()));
        NewModule::new(name, &self.kind, &factors, 1.0, bias, DTYPE)
    }

    /// The module's own tensors.
    pub(super) fn kept(&self, plan: &AsLora) -> Result<NewModule> {
        let module = plan.module(self)?;
        let tensors = module.tensors().map(|name| {
            let view = plan.adapter.file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
            let key =
                (plan.adapter.convention.parse)(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
            let mut scratch = Vec::new();
            let bytes = view.all(&mut scratch)?.to_vec();
            Ok((key.part, view.spec.dtype, view.spec.shape.clone(), bytes))
        });
        let tensors = tensors.collect::<Result<Vec<PartTensor>>>()?;
        Ok(NewModule::stored(module.name.clone(), tensors))
    }

    /// Whether something is added to the layer's bias.
    pub(super) fn changes_bias(&self, plan: &AsLora) -> Result<bool> {
        let added = plan.module(self)?.added_bias().is_some();
        Ok(added || self.place_of_bias(plan)?.is_some())
    }

    /// What is added to the layer's bias.
    ///
    /// # Errors
    /// If reading fails.
    pub(super) fn bias(&self, plan: &AsLora) -> Result<Option<Vec<f64>>> {
        if let Some((tensor, coefficient)) = plan.module(self)?.added_bias() {
            let view =
                plan.adapter.file.tensor(tensor).ok_or(ErrorKind::NotFound).in_tensor(tensor)?;
            let values = read_f64(view, 0, view.spec.elements())?;
            return Ok(Some(values.into_iter().map(|value| value * coefficient).collect()));
        }
        let (Some(merge), Some(place)) = (&plan.merge, self.place_of_bias(plan)?) else {
            return Ok(None);
        };
        let mut values = vec![0f32; place.rows * place.columns];
        place.open(merge)?.fill(0, &mut values)?;
        Ok(Some(values.into_iter().map(f64::from).collect()))
    }

    fn place_of_bias<'a>(&self, plan: &'a AsLora) -> Result<Option<TransformedPlace<'a>>> {
        let bias = plan.module(self)?.bias.as_ref();
        let transformed = bias.is_some_and(|bias| bias.effect.transforms());
        let (Some(merge), Origin::Base(number), true) = (&plan.merge, &self.origin, transformed)
        else {
            return Ok(None);
        };
        Ok(TransformedPlace::of_bias(merge, *number))
    }
}
