//! What a family makes a module from: the module's tensors, held to the shapes that the family expects.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::definition::Family;
use crate::adapter::key::Part;
use crate::adapter::module::{Bias, BiasEffect, Form, Kind, Module};
use crate::adapter::scale::{Scale, ScaleSources};
use crate::adapter::sidecar::PeftConfig;
use crate::adapter::slice::find;
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Checkpoint, TensorView};
use crate::weight::element::is_float;

/// A module's tensors by their part, each by its name in the file.
pub(in crate::adapter) type Parts = BTreeMap<Part, String>;

/// What a module is made from.
pub(in crate::adapter) struct Source<'a> {
    /// The module's name.
    pub(in crate::adapter) name: &'a str,
    /// Its tensors.
    pub(in crate::adapter) parts: &'a Parts,
    /// Tensors that all modules share.
    pub(in crate::adapter) shared: &'a Parts,
    pub(in crate::adapter) file: &'a Checkpoint,
    pub(in crate::adapter) scales: &'a ScaleSources<'a>,
    pub(in crate::adapter) config: Option<&'a PeftConfig>,
}

impl<'a> Source<'a> {
    /// A module of a linear layer that does nothing to the bias, with a scale of 1 that the family says. Its rank and
    /// its sizes are 0, for the family to say what it knows of them.
    pub(super) fn linear(&self, family: &Family, form: impl Form + 'static) -> Module {
        Module {
            name: self.name.to_owned(),
            family: family.name,
            kind: Kind::Linear,
            rank: 0,
            inputs: 0,
            outputs: 0,
            scale: Scale::of_family(1.0, None),
            form: Arc::new(form),
            bias: None,
            magnitude: None,
        }
    }

    /// A family's own tensor, if it is there.
    pub(super) fn named(&self, part: &'static str) -> Option<&'a str> {
        self.parts.get(&Part::Named(part)).map(String::as_str)
    }

    /// A family's own tensor, which has to be there since `present` is.
    pub(super) fn required(&self, part: &'static str, present: &'static str) -> Result<&'a str> {
        self.named(part).ok_or_else(|| ErrorKind::MissingFactor { present, missing: part }.into())
    }

    /// The config, without which the tensors mean nothing.
    pub(super) fn required_config(&self) -> Result<&'a PeftConfig> {
        self.config.ok_or_else(|| {
            let reason = "it is missing, and alone says what the tensors mean".to_owned();
            ErrorKind::BadConfig { reason }.into()
        })
    }

    /// The length of a tensor of one dimension.
    pub(super) fn vector(&self, name: &str) -> Result<usize> {
        match self.view(name)?.spec.shape.as_slice() {
            [length] => Ok(*length),
            shape => {
                let expected = "one dimension".to_owned();
                Err(ErrorKind::BadShape { expected, found: shape.to_vec() }).in_tensor(name)
            }
        }
    }

    /// A tensor of the file, none of whose dimensions is 0.
    pub(super) fn view(&self, name: &str) -> Result<TensorView<'a>> {
        let view = find(self.file, name)?;
        if view.spec.shape.contains(&0) {
            return Err(ErrorKind::EmptyFactor { shape: view.spec.shape.clone() }).in_tensor(name);
        }
        Ok(view)
    }

    /// As [`Source::view`], as (rows, columns, dimensions after the second); columns without those.
    pub(super) fn matrix(&self, name: &str) -> Result<(usize, usize, &'a [usize])> {
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
    pub(super) fn kernel(&self, core: &str) -> Result<&'a [usize]> {
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
    pub(super) fn expect(
        &self,
        name: &str,
        rows: usize,
        columns: usize,
        rest: &[usize],
    ) -> Result<()> {
        let found = self.matrix(name)?;
        if found == (rows, columns, rest) {
            return Ok(());
        }
        let expected = [&[rows, columns], rest].concat();
        let found = self.view(name)?.spec.shape.clone();
        Err(ErrorKind::BadShape { expected: format!("{expected:?}"), found }).in_tensor(name)
    }

    /// (rows, columns) of a tensor without further dimensions.
    pub(super) fn plain_matrix(&self, name: &str) -> Result<(usize, usize)> {
        let (rows, columns, _) = self.matrix(name)?;
        self.expect(name, rows, columns, &[])?;
        Ok((rows, columns))
    }

    /// (outputs, rank, inputs) of A, rank × inputs, and B, outputs × rank, each with `rest` after these dimensions.
    pub(super) fn factors(
        &self,
        down: &str,
        up: &str,
        rest: &[usize],
    ) -> Result<(usize, usize, usize)> {
        let (rank, inputs, _) = self.matrix(down)?;
        let (outputs, _, _) = self.matrix(up)?;
        self.expect(down, rank, inputs, rest)?;
        self.expect(up, outputs, rank, rest)?;
        Ok((outputs, rank, inputs))
    }

    /// A tensor for the bias of a layer of as many outputs, or of an unknown number if 0.
    pub(super) fn bias(&self, tensor: &str, outputs: usize, effect: BiasEffect) -> Result<Bias> {
        let view = self.view(tensor)?;
        let length = view.spec.elements();
        if outputs != 0 {
            check_length(view, outputs)?;
        }
        Ok(Bias { tensor: tensor.to_owned(), length, effect })
    }

    /// The module's alpha tensor's value, if it has one.
    pub(super) fn alpha(&self) -> Result<Option<f64>> {
        let tensor = self.parts.get(&Part::Alpha);
        tensor.map(|alpha| read_alpha(find(self.file, alpha)?)).transpose()
    }
}

/// Fails unless the tensor has `length` elements, whatever its shape (`[out]`, `[1, out, 1, 1]`).
pub(super) fn check_length(view: TensorView<'_>, length: usize) -> Result<()> {
    if view.spec.elements() == length {
        return Ok(());
    }
    let (expected, found) = (format!("{length} elements"), view.spec.shape.clone());
    Err(ErrorKind::BadShape { expected, found }).in_tensor(&view.spec.name)
}

pub(super) fn read_alpha(view: TensorView<'_>) -> Result<f64> {
    check_length(view, 1)?;
    let alpha = match is_float(view.spec.dtype) {
        true => read_f64(view, 0, 1)?.first().copied().unwrap_or(f64::NAN),
        false => read_integer(view)?,
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
