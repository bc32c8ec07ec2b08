//! Bytes of a file before its factors exist, for budgets of size.

use super::encode::{ALPHA, bias_part, describe, spell};
use crate::adapter::convention::{Convention, Part, ScalePlace};
use crate::adapter::hashes::file_order;
use crate::adapter::module::Kind;
use crate::adapter::new_adapter::{Described, NewReplacement, shapes};
use crate::error::Result;
use crate::format::header::{self, lay_out};
use crate::format::{Dtype, Metadata};

/// A module as a size budget sees it.
#[derive(Debug, Clone)]
pub struct Sized<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its kind of layer.
    pub kind: &'a Kind,
    /// Outputs and inputs.
    pub shape: (usize, usize),
    /// What its factors will be multiplied by.
    pub scale: f64,
    /// Whether something is added to its bias.
    pub biased: bool,
}

/// Bytes that a file will have whose modules have these ranks.
///
/// # Errors
/// If the convention cannot spell a part.
pub fn file_size(
    convention: &Convention,
    modules: &[Sized<'_>],
    ranks: &[usize],
    replacements: &[NewReplacement],
    dtype: Dtype,
    metadata: &Metadata,
) -> Result<u64> {
    let mut tensors = Vec::with_capacity(modules.len() * 3 + replacements.len());
    for (module, rank) in modules.iter().zip(ranks) {
        for (part, shape) in shapes(module.kind, module.shape.0, module.shape.1, *rank) {
            tensors.push((spell(convention, module.name, part)?, dtype, shape));
        }
        if module.biased {
            let shape = vec![module.shape.0];
            tensors.push((spell(convention, module.name, bias_part(convention))?, dtype, shape));
        }
        if convention.scale == ScalePlace::Tensor {
            tensors.push((spell(convention, module.name, Part::Alpha)?, ALPHA, Vec::new()));
        }
    }
    for replacement in replacements {
        let name = spell(convention, &replacement.module, replacement.part())?;
        tensors.push((name, replacement.dtype, replacement.shape.clone()));
    }
    tensors.sort_by(|a, b| file_order((&a.0, a.1), (&b.0, b.1)));
    let described = modules.iter().zip(ranks).map(|(module, rank)| Described {
        name: module.name,
        rank: *rank,
        alpha: module.scale * *rank as f64,
        scale: module.scale,
        stored: false,
        dora: false,
        bias: module.biased,
    });
    let mut metadata = metadata.clone();
    describe(convention, &described.collect::<Vec<_>>(), &mut metadata)?;
    let specs = lay_out(tensors);
    let header = header::encode(Some(&metadata), &specs)?;
    Ok(header.len() as u64 + specs.last().map_or(0, |spec| spec.end))
}
