//! Differences that adapters store whole (`diff`, `diff_b`, norms): they have no factors, so no rank is
//! chosen for them. Their weighted sum is made element by element and stored the same way; no other method
//! is defined on them.

use std::collections::BTreeMap;

use super::group::Group;
use super::stored::Stored;
use crate::adapter::Adapter;
use crate::adapter::convention::{Convention, Part};
use crate::adapter::save::{NewModule, PartTensor};
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, FamilyError, Locate, Result};
use crate::format::Dtype;
use crate::method::{Law, Method};
use crate::weight::element::encoded;

/// A module of the result, whose tensors are sums.
#[derive(Debug, Clone)]
pub(super) struct Sum {
    pub(super) name: String,
    tensors: BTreeMap<Part, Summed>,
}

/// A tensor of the result.
#[derive(Debug, Clone)]
struct Summed {
    shape: Vec<usize>,
    /// An adapter, its tensor, and what it is multiplied by.
    terms: Vec<(usize, String, f64)>,
}

/// The sums of all stored differences, in order of their names.
///
/// # Errors
/// A method that does more than add, modules that have factors in another adapter, adapters of other
/// conventions than the result's, shapes that differ.
pub(super) fn sums(
    stored: &[Stored],
    groups: &[Group],
    adapters: &[Adapter],
    method: &Method,
    convention: &Convention,
) -> Result<Vec<Sum>> {
    let mut found: BTreeMap<&str, BTreeMap<Part, Summed>> = BTreeMap::new();
    for difference in stored {
        let (adapter, module) = difference.of(adapters).ok_or(ErrorKind::NotFound)?;
        let summed = method.laws.contains(&Law::WeightedSum);
        let factored = groups.iter().any(|group| group.name == module.name);
        if !summed || factored || adapter.convention != convention {
            return Err(FamilyError::NotLowRank { family: module.family })
                .in_tensor(&module.name)
                .in_file(&adapter.path);
        }
        let tensors = found.entry(&module.name).or_default();
        for tensor in module.tensors() {
            add(tensors, adapter, tensor, difference)
                .map_err(|error| error.in_tensor(tensor).in_file(&adapter.path))?;
        }
    }
    let sums = found.into_iter().map(|(name, tensors)| Sum { name: name.to_owned(), tensors });
    Ok(sums.collect())
}

fn add(
    tensors: &mut BTreeMap<Part, Summed>,
    adapter: &Adapter,
    tensor: &str,
    difference: &Stored,
) -> Result<()> {
    let part = (adapter.convention.parse)(tensor).ok_or(ErrorKind::NotFound)?.part;
    let shape = adapter.file.tensor(tensor).ok_or(ErrorKind::NotFound)?.spec.shape.clone();
    let new = || Summed { shape: shape.clone(), terms: Vec::new() };
    let summed = tensors.entry(part).or_insert_with(new);
    if summed.shape != shape {
        let expected = format!("{:?} as in another adapter", summed.shape);
        return Err(ErrorKind::BadShape { expected, found: shape }.into());
    }
    summed.terms.push((difference.adapter, tensor.to_owned(), difference.weight));
    Ok(())
}

impl Sum {
    /// Adds the terms up, λ times, in f64, and rounds once.
    ///
    /// # Errors
    /// If reading fails.
    pub(super) fn add(&self, adapters: &[Adapter], lambda: f64, dtype: Dtype) -> Result<NewModule> {
        let tensors = self.tensors.iter().map(|(part, summed)| {
            let mut sum = vec![0.0; summed.shape.iter().product()];
            for (number, tensor, weight) in &summed.terms {
                let adapter = adapters.get(*number).ok_or(ErrorKind::NotFound)?;
                let view = adapter.file.tensor(tensor).ok_or(ErrorKind::NotFound)?;
                for (sum, value) in sum.iter_mut().zip(read_f64(view, 0, view.spec.elements())?) {
                    *sum += lambda * weight * value;
                }
            }
            Ok((*part, dtype, summed.shape.clone(), encoded(dtype, &sum)?))
        });
        let tensors = tensors.collect::<Result<Vec<PartTensor>>>().in_tensor(&self.name)?;
        Ok(NewModule::stored(self.name.clone(), tensors))
    }
}
