//! Parametrisations of an update, one file each: from a module's tensors to a checked [`Module`].
//!
//! `FAMILIES` is the one list. A family says by which parts it is recognised, which others it takes,
//! and how a module is made of them; a part that none of a module's family takes is a fault.

mod adalora;
mod boft;
mod decompose;
mod delora;
mod full;
mod glora;
mod gralora;
mod hira;
mod hra;
mod ia3;
mod loha;
mod lokr;
pub mod lora;
mod miss;
mod oft;
pub(crate) mod oft_blocks;
mod randlora;
pub(super) mod replaced;
mod vblora;
mod vera;

use std::collections::BTreeMap;

use super::convention::{self, Part};
use super::module::{Bias, BiasEffect, Module};
use super::scale::ScaleSources;
use super::sidecar::PeftConfig;
use super::slice::{check_dtype, find};
use super::tensor::{element_type, read_f64};
use crate::error::{Error, ErrorKind, FamilyError, Locate, Result};
use crate::format::{Checkpoint, TensorView};

/// A module's tensors by their part, each by its name in the file.
pub(super) type Parts = BTreeMap<Part, String>;

/// One parametrisation.
struct Family {
    /// Its name in reports.
    name: &'static str,
    /// Parts of which any makes a module one of the family.
    signs: &'static [Part],
    /// Other parts it takes.
    parts: &'static [Part],
    /// Makes a module, not yet decomposed.
    build: fn(&Source<'_>) -> Result<Module>,
}

/// All families; the first that a sign fits is taken, LoRA where none does (alphas without factors).
static FAMILIES: [&Family; 20] = [
    &loha::FAMILY,
    &lokr::FAMILY,
    &adalora::FAMILY,
    &vera::FAMILY,
    &delora::FAMILY,
    &gralora::FAMILY,
    &vblora::FAMILY,
    &randlora::FAMILY,
    &miss::FAMILY,
    &ia3::PEFT,
    &ia3::LYCORIS,
    &oft::FAMILY,
    &boft::FAMILY,
    &oft_blocks::FAMILY,
    &hra::FAMILY,
    &hira::FAMILY,
    &glora::FAMILY,
    &full::FAMILY,
    &lora::FAMILY,
    &full::BIAS,
];

/// What a module is made from.
pub(super) struct Source<'a> {
    /// The module's name.
    pub(super) name: &'a str,
    /// Its tensors.
    pub(super) parts: &'a Parts,
    /// Tensors that all modules share.
    pub(super) shared: &'a Parts,
    pub(super) file: &'a Checkpoint,
    pub(super) scales: &'a ScaleSources<'a>,
    pub(super) config: Option<&'a PeftConfig>,
}

/// Makes the module of these tensors; none if they only replace.
pub(super) fn module(source: &Source<'_>) -> Result<Option<Module>> {
    let replaces = |part: &Part| matches!(part, Part::Weight | Part::Bias | Part::TokenRows);
    if source.parts.keys().all(replaces) {
        return Ok(None);
    }
    if let Some(key) = source.parts.get(&Part::Foreign) {
        let family = convention::foreign_family(key).unwrap_or("an unknown family's");
        return Err(ErrorKind::UnsupportedFamily { family }.into());
    }
    let fits = |family: &&&Family| family.signs.iter().any(|sign| source.parts.contains_key(sign));
    let family = FAMILIES.iter().find(fits).copied().unwrap_or(&lora::FAMILY);
    for (part, tensor) in source.parts {
        let known = family.signs.contains(part) || family.parts.contains(part) || replaces(part);
        if !known {
            return Err(stray(family, tensor));
        }
    }
    let mut module = (family.build)(source)?;
    for tensor in module.tensors() {
        check_dtype(find(source.file, tensor)?)?;
    }
    if let Some(tensor) = source.named("diff_b") {
        if module.bias.is_some() {
            return Err(stray(family, tensor));
        }
        module.bias = Some(source.bias(tensor, module.outputs, BiasEffect::Add)?);
    }
    decompose::apply(module, source).map(Some)
}

/// The error of a tensor that its module's family has no use for.
fn stray(family: &Family, tensor: &str) -> Error {
    Error::from(FamilyError::StrayPart { family: family.name }).in_tensor(tensor)
}

impl<'a> Source<'a> {
    /// A family's own tensor, if it is there.
    fn named(&self, part: &'static str) -> Option<&'a str> {
        self.parts.get(&Part::Named(part)).map(String::as_str)
    }

    /// A family's own tensor, which has to be there since `present` is.
    fn required(&self, part: &'static str, present: &'static str) -> Result<&'a str> {
        self.named(part).ok_or_else(|| ErrorKind::MissingFactor { present, missing: part }.into())
    }

    /// A tensor of the file, none of whose dimensions is 0.
    fn view(&self, name: &str) -> Result<TensorView<'a>> {
        let view = find(self.file, name)?;
        if view.spec.shape.contains(&0) {
            return Err(ErrorKind::EmptyFactor { shape: view.spec.shape.clone() }).in_tensor(name);
        }
        Ok(view)
    }

    /// As [`Source::view`], as (rows, columns, dimensions after the second); columns without those.
    fn matrix(&self, name: &str) -> Result<(usize, usize, &'a [usize])> {
        let view = self.view(name)?;
        match view.spec.shape.as_slice() {
            [rows, columns, rest @ ..] if rest.len() <= 3 => Ok((*rows, *columns, rest)),
            _ => {
                let expected = "a matrix, or one with a kernel".to_owned();
                Err(ErrorKind::BadShape { expected, found: view.spec.shape.clone() })
                    .in_tensor(name)
            }
        }
    }

    /// The kernel of a core. Every position of it becomes inputs, so that a small file could otherwise
    /// claim a weight of any size.
    fn kernel(&self, core: &str) -> Result<&'a [usize]> {
        const LARGEST: usize = 4096;
        let (_, _, kernel) = self.matrix(core)?;
        if kernel.iter().product::<usize>() <= LARGEST {
            return Ok(kernel);
        }
        let expected = format!("a core with a kernel of at most {LARGEST} positions");
        Err(ErrorKind::BadShape { expected, found: self.view(core)?.spec.shape.clone() })
            .in_tensor(core)
    }

    /// Fails unless the tensor is `rows` × `columns`, with dimensions after that as `rest` has them.
    fn expect(&self, name: &str, rows: usize, columns: usize, rest: &[usize]) -> Result<()> {
        let found = self.matrix(name)?;
        if found == (rows, columns, rest) {
            return Ok(());
        }
        let expected = [&[rows, columns], rest].concat();
        let found = self.view(name)?.spec.shape.clone();
        Err(ErrorKind::BadShape { expected: format!("{expected:?}"), found }).in_tensor(name)
    }

    /// A tensor for the bias of a layer of as many outputs, or of an unknown number if 0.
    fn bias(&self, tensor: &str, outputs: usize, effect: BiasEffect) -> Result<Bias> {
        let view = self.view(tensor)?;
        let length = view.spec.elements();
        if outputs != 0 {
            check_length(view, outputs)?;
        }
        Ok(Bias { tensor: tensor.to_owned(), length, effect })
    }

    /// The module's alpha tensor's value, if it has one.
    fn alpha(&self) -> Result<Option<f64>> {
        let tensor = self.parts.get(&Part::Alpha);
        tensor.map(|alpha| read_alpha(find(self.file, alpha)?)).transpose()
    }
}

/// Fails unless the tensor has `length` elements, whatever its shape (`[out]`, `[1, out, 1, 1]`).
fn check_length(view: TensorView<'_>, length: usize) -> Result<()> {
    if view.spec.elements() == length {
        return Ok(());
    }
    let (expected, found) = (format!("{length} elements"), view.spec.shape.clone());
    Err(ErrorKind::BadShape { expected, found }).in_tensor(&view.spec.name)
}

fn read_alpha(view: TensorView<'_>) -> Result<f64> {
    check_length(view, 1)?;
    let alpha = match element_type(view.spec.dtype) {
        Some(_) => read_f64(view, 0, 1)?.first().copied().unwrap_or(f64::NAN),
        None => read_integer(view)?,
    };
    if alpha.is_finite() {
        return Ok(alpha);
    }
    Err(ErrorKind::NonFinite { index: 0, value: alpha.to_string() }).in_tensor(&view.spec.name)
}

/// Some writers keep alpha as an integer.
fn read_integer(view: TensorView<'_>) -> Result<f64> {
    let mut scratch = Vec::new();
    let bytes = view.all(&mut scratch)?;
    if let Ok(bytes) = <[u8; 8]>::try_from(bytes) {
        return Ok(i64::from_le_bytes(bytes) as f64);
    }
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Ok(f64::from(i32::from_le_bytes(bytes)));
    }
    Err(ErrorKind::BadDtype { dtype: view.spec.dtype.to_string() }).in_tensor(&view.spec.name)
}
