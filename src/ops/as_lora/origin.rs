//! Where each module's update comes from, and how large it is.

use crate::adapter::Adapter;
use crate::adapter::convention::{Convention, ScalePlace};
use crate::adapter::module::{Kind, Module, Nature, Update};
use crate::error::{ErrorKind, Locate, Result};
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
    /// A matrix that the adapter makes row by row.
    Rows,
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
        Nature::Dense => open,
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
    native.scale == ScalePlace::Tensor && adapter.convention == native
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
        Nature::Dense => Ok(planned(Origin::Rows, module.kind.clone(), size)),
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
