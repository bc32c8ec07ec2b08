//! Which family a module is of.

use super::definition::Family;
use super::source::Source;
use super::{FAMILIES, decompose, lora};
use crate::adapter::key::{Part, foreign_family};
use crate::adapter::module::{BiasEffect, Module};
use crate::adapter::slice::{check_dtype, find};
use crate::error::{ErrorKind, Result};

/// Declares the file of every family and lists them.
macro_rules! families {
    ($($seen:vis $name:ident: $($family:ident),+;)+) => {
        $($seen mod $name;)+
        /// All families; the first that a sign fits is taken, LoRA where none does (alphas without factors).
        static FAMILIES: &[&definition::Family] = &[$($(&$name::$family),+),+];
    };
}

/// Makes the module of these tensors; none if they only replace.
pub(in crate::adapter) fn module(source: &Source<'_>) -> Result<Option<Module>> {
    let replaces = |part: &Part| matches!(part, Part::Weight | Part::Bias | Part::TokenRows);
    if source.parts.keys().all(replaces) {
        return Ok(None);
    }
    if let Some(key) = source.parts.get(&Part::Foreign) {
        let family = foreign_family(key).unwrap_or("an unknown family's");
        return Err(ErrorKind::UnsupportedFamily { family }.into());
    }
    let fits = |family: &&&Family| family.signs.iter().any(|sign| source.parts.contains_key(sign));
    let family = FAMILIES.iter().find(fits).copied().unwrap_or(&lora::FAMILY);
    for (part, tensor) in source.parts {
        let known = family.signs.contains(part) || family.parts.contains(part) || replaces(part);
        if !known {
            return Err(family.stray(tensor));
        }
    }
    let mut module = (family.build)(source)?;
    for tensor in module.tensors() {
        check_dtype(find(source.file, tensor)?)?;
    }
    if let Some(tensor) = source.named("diff_b") {
        if module.bias.is_some() {
            return Err(family.stray(tensor));
        }
        module.bias = Some(source.bias(tensor, module.outputs, BiasEffect::Add)?);
    }
    decompose::apply(module, source).map(Some)
}
