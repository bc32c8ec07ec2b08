//! Where each module's update comes from, and how large it is.

use super::{AsLora, DTYPE};
use crate::adapter::Adapter;
use crate::adapter::convention::{Convention, ScalePlace};
use crate::adapter::module::{BiasEffect, Kind, Module, Nature, Update};
use crate::adapter::save::{NewModule, PartTensor, bias_part};
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, Locate, Result};
use crate::math::linalg::panels::Panels;
use crate::math::{LowRank, Matrix};
use crate::ops::merge::Merge;
use crate::ops::merge::compute::module_delta::TransformedPlace;

/// A module and what its factors are made of.
#[derive(Debug)]
pub(super) struct Planned {
    /// Its number in the adapter.
    pub(super) module: usize,
    pub(super) origin: Origin,
    /// The kind of layer that the factors are written for.
    pub(super) kind: Kind,
    /// (outputs, inputs) of the update.
    pub(super) size: (usize, usize),
    /// Whether the origin gives inputs × outputs.
    pub(super) turned: bool,
}

/// Where an update comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// It has exact factors.
    Factors,
    /// A tensor of the adapter, as large as the weight.
    Stored(String),
    /// The module of this number of the merge transforms the base's weight.
    Base(usize),
    /// It has no matrix to factor, and stays the tensors that it is.
    Kept,
}

/// Whether a module's update, or what it does to a bias, depends on the base's values or shapes.
pub(super) fn needs_base(module: &Module) -> bool {
    let open = module.outputs == 0 || module.inputs == 0;
    match module.nature() {
        Nature::Dependent => true,
        Nature::LowRank(rank) => rank > 0 && open,
        Nature::Full => false,
    }
}

/// Where the updates of all modules come from, and what has no factors and is lost.
///
/// # Errors
/// If a module cannot be read, or lies where its update is no matrix.
pub(super) fn of_all(
    adapter: &Adapter,
    merge: Option<&Merge>,
    native: &Convention,
) -> Result<(Vec<Planned>, Vec<String>)> {
    let (mut modules, mut lost) = (Vec::new(), Vec::new());
    for (at, module) in adapter.modules.iter().enumerate() {
        match of(adapter, merge, at, module).in_tensor(&module.name).in_file(&adapter.path)? {
            Planned { origin: Origin::Kept, .. } if !keeps(adapter, native) => {
                lost.push(format!(
                    "{}: the whole of it; it is no matrix, which factors need",
                    module.name
                ));
            }
            planned => modules.push(planned),
        }
    }
    Ok((modules, lost))
}

/// Whether what has no factors can stay as it is.
fn keeps(adapter: &Adapter, native: &Convention) -> bool {
    native.scale == ScalePlace::Tensor && adapter.convention.name == native.name
}

fn of(adapter: &Adapter, merge: Option<&Merge>, at: usize, module: &Module) -> Result<Planned> {
    let size = (module.outputs, module.inputs);
    let planned = |origin, kind, size| Planned { module: at, origin, kind, size, turned: false };
    match module.nature() {
        Nature::LowRank(0) => Ok(planned(Origin::Kept, module.kind.clone(), size)),
        Nature::LowRank(_) => {
            adapter.check_factors(module)?;
            Ok(planned(Origin::Factors, module.kind.clone(), size))
        }
        Nature::Full => {
            let Update::Stored(tensor) = adapter.update(module, size)? else {
                return Err(ErrorKind::NotAdditive { family: module.family }.into());
            };
            let kind = match module.shape().as_slice() {
                [] | [_] => return Ok(planned(Origin::Kept, module.kind.clone(), size)),
                [_, _] => Kind::Linear,
                [_, _, kernel @ ..] => Kind::Conv(kernel.to_vec()),
            };
            Ok(planned(Origin::Stored(tensor), kind, size))
        }
        Nature::Dependent => {
            let merge = merge.ok_or(ErrorKind::NotFound)?;
            let modules = merge.inputs.adapters.first().map(|adapter| &adapter.modules);
            let number = modules.and_then(|all| all.iter().position(|own| own.name == module.name));
            let number = number.ok_or(ErrorKind::NotFound)?;
            let place = TransformedPlace::of_weight(merge, number).ok_or(ErrorKind::NotFound)?;
            let kind = match (&module.kind, place.kernel.as_slice()) {
                (kind @ (Kind::Embedding | Kind::Conv(_)), _) | (kind @ Kind::Linear, []) => {
                    kind.clone()
                }
                (_, []) => Kind::Linear,
                (_, kernel) => Kind::Conv(kernel.to_vec()),
            };
            let (rows, columns) = (place.rows, place.columns);
            let size = if place.turned { (columns, rows) } else { (rows, columns) };
            Ok(Planned { turned: place.turned, ..planned(Origin::Base(number), kind, size) })
        }
    }
}

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
        let multiplied = bias.is_some_and(|bias| bias.effect == BiasEffect::Multiply);
        let (Some(merge), Origin::Base(number), true) = (&plan.merge, &self.origin, multiplied)
        else {
            return Ok(None);
        };
        Ok(TransformedPlace::of_bias(merge, *number))
    }
}
