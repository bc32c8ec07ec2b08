//! Tensors that adapters put in the place of the base's, carried over into the result.

use std::collections::BTreeMap;

use super::options::{OnConflict, Options};
use crate::adapter::Adapter;
use crate::adapter::convention::Convention;
use crate::adapter::module::{Replacement, Replaces};
use crate::adapter::save::NewReplacement;
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, Locate, Result};
use crate::weight::element::encoded;

/// Replaced tensors of the result.
#[derive(Debug, Clone, Default)]
pub(in crate::ops) struct Carried {
    pub(in crate::ops) replacements: Vec<NewReplacement>,
    pub(super) warnings: Vec<String>,
}

impl Carried {
    pub(super) fn labels(&self) -> Vec<String> {
        let label = |r: &NewReplacement| match r.replaces {
            Replaces::Bias => format!("{}.bias", r.module),
            _ => format!("{}.weight", r.module),
        };
        self.replacements.iter().map(label).collect()
    }
}

/// Gathers replaced tensors; identical ones pass, different ones are the user's to decide.
pub(in crate::ops) fn replacements(
    options: &Options,
    adapters: &[Adapter],
    output: &Convention,
) -> Result<Carried> {
    let mut carried = Carried::default();
    let mut found: BTreeMap<(String, u8), Vec<(usize, NewReplacement)>> = BTreeMap::new();
    for (number, adapter) in adapters.iter().enumerate() {
        let selected =
            |replacement: &&Replacement| options.selection().selects([&replacement.module; 2]);
        for replacement in adapter.replacements.iter().filter(selected) {
            let name = &replacement.tensor;
            let view = adapter.file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
            let mut scratch = Vec::new();
            let new = NewReplacement {
                module: replacement.module.clone(),
                replaces: replacement.replaces.clone(),
                dtype: view.spec.dtype,
                shape: view.spec.shape.clone(),
                bytes: view.all(&mut scratch)?.to_vec(),
            };
            let kind = match new.replaces {
                Replaces::Weight => 0,
                Replaces::Bias => 1,
                Replaces::Rows(_) => 2,
            };
            found.entry((new.module.clone(), kind)).or_default().push((number, new));
        }
    }
    if !found.is_empty() && !output.holds.replacements {
        let reason = format!(
            "the {} convention cannot hold tensors that replace the base's, and an input has {}",
            output.name,
            found.len()
        );
        return Err(ErrorKind::BadOption(reason).into());
    }
    for ((module, _), all) in found {
        settle_conflict(options, adapters, &module, &all, &mut carried)?;
    }
    Ok(carried)
}

fn settle_conflict(
    options: &Options,
    adapters: &[Adapter],
    module: &str,
    all: &[(usize, NewReplacement)],
    carried: &mut Carried,
) -> Result<()> {
    let Some((number, first)) = all.first() else { return Ok(()) };
    let other = all.iter().find(|(_, other)| {
        other.bytes != first.bytes || other.shape != first.shape || other.replaces != first.replaces
    });
    let Some((second, _)) = other else {
        carried.replacements.push(first.clone());
        return Ok(());
    };
    let path = |number: usize| adapters.get(number).map(|a| a.path.clone()).unwrap_or_default();
    match options.on_conflict {
        None => {
            let (first, second) = (path(*number), path(*second));
            return Err(ErrorKind::ReplacementsDiffer { first, second }).in_tensor(module);
        }
        Some(OnConflict::Drop) => {
            carried
                .warnings
                .push(format!("`{module}` is replaced differently by the inputs and was left out"));
        }
        Some(OnConflict::First) => carried.replacements.push(first.clone()),
        Some(OnConflict::Average) => carried.replacements.push(average(adapters, all, module)?),
    }
    Ok(())
}

fn average(
    adapters: &[Adapter],
    all: &[(usize, NewReplacement)],
    module: &str,
) -> Result<NewReplacement> {
    let Some((_, first)) = all.first() else { return Err(ErrorKind::NotFound.into()) };
    let mut sum = vec![0.0; first.shape.iter().product()];
    for (number, other) in all {
        let same = other.shape == first.shape && other.replaces == first.replaces;
        let adapter = adapters.get(*number).filter(|_| same);
        let tensor = adapter.and_then(|adapter| {
            let replaced = adapter.replacements.iter();
            let mut same_tensor =
                replaced.filter(|r| r.module == other.module && r.replaces == other.replaces);
            adapter.file.tensor(&same_tensor.next()?.tensor)
        });
        let Some(view) = tensor else {
            let (expected, found) =
                (format!("{:?} as in the first adapter", first.shape), other.shape.clone());
            return Err(ErrorKind::BadShape { expected, found }).in_tensor(module);
        };
        for (sum, value) in sum.iter_mut().zip(read_f64(view, 0, view.spec.elements())?) {
            *sum += value / all.len() as f64;
        }
    }
    let mut averaged = first.clone();
    averaged.bytes = encoded(first.dtype, &sum).in_tensor(module)?;
    Ok(averaged)
}
