//! LoRA (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>): scale · B · A, with B: out × rank and
//! A: rank × in; of convolutions and embeddings too.

use super::Parts;
use crate::adapter::convention::Part;
use crate::adapter::module::{Family, Kind, Module};
use crate::adapter::scale::ScaleSources;
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Checkpoint, TensorView};

/// Pairs a module's factors and checks that they belong together.
pub(crate) fn module(
    name: &str,
    parts: &Parts,
    file: &Checkpoint,
    scales: &ScaleSources<'_>,
) -> Result<Module> {
    let (down, up, embedding) = factors(parts)?;
    let (down_view, up_view) = (view(file, down)?, view(file, up)?);
    for factor in [down_view, up_view] {
        if factor.spec.shape.contains(&0) {
            return Err(ErrorKind::EmptyFactor { shape: factor.spec.shape.clone() })
                .in_tensor(&factor.spec.name);
        }
    }
    let (rank, inputs, kernel) = split_down(down_view)?;
    let outputs = outputs_of(up_view, down_view, rank)?;
    let kind = match kernel {
        _ if embedding => Kind::Embedding,
        kernel if kernel.is_empty() => Kind::Linear,
        kernel => Kind::Conv(kernel),
    };
    let up_bias = parts.get(&Part::UpBias).cloned();
    if let Some(bias) = &up_bias {
        check_length(view(file, bias)?, outputs)?;
    }
    let alpha = parts.get(&Part::Alpha).map(|alpha| read_alpha(view(file, alpha)?)).transpose()?;
    Ok(Module {
        name: name.to_owned(),
        family: Family::Lora,
        kind,
        rank,
        inputs,
        outputs,
        scale: scales.resolve(name, rank, alpha)?,
        down: down.to_owned(),
        up: up.to_owned(),
        up_bias,
        magnitude: None,
    })
}

pub(crate) fn view<'a>(file: &'a Checkpoint, name: &str) -> Result<TensorView<'a>> {
    file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)
}

/// Fails unless the tensor has `length` elements, whatever its shape (`[out]`, `[1, out, 1, 1]`).
pub(crate) fn check_length(view: TensorView<'_>, length: usize) -> Result<()> {
    if view.spec.elements() == length {
        return Ok(());
    }
    let (expected, found) = (format!("{length} elements"), view.spec.shape.clone());
    Err(ErrorKind::BadShape { expected, found }).in_tensor(&view.spec.name)
}

fn factors(parts: &Parts) -> Result<(&str, &str, bool)> {
    let pairs = [(Part::Down, Part::Up, false), (Part::EmbeddingDown, Part::EmbeddingUp, true)];
    for (down, up, embedding) in pairs {
        match (parts.get(&down), parts.get(&up)) {
            (Some(down), Some(up)) => return Ok((down, up, embedding)),
            (Some(_), None) => {
                return Err(
                    ErrorKind::MissingFactor { present: "A (down)", missing: "B (up)" }.into()
                );
            }
            (None, Some(_)) => {
                return Err(
                    ErrorKind::MissingFactor { present: "B (up)", missing: "A (down)" }.into()
                );
            }
            (None, None) => {}
        }
    }
    Err(ErrorKind::MissingFactor { present: "an alpha or a bias", missing: "A and B" }.into())
}

/// (rank, inputs flattened with the kernel, kernel) of A: [rank, in] or [rank, in, kernel…].
fn split_down(down: TensorView<'_>) -> Result<(usize, usize, Vec<usize>)> {
    match down.spec.shape.as_slice() {
        [rank, channels, kernel @ ..] if kernel.len() <= 3 => {
            let inputs = channels * kernel.iter().product::<usize>();
            Ok((*rank, inputs, kernel.to_vec()))
        }
        _ => {
            let expected = "[rank, in] or [rank, in, kernel…]".to_owned();
            Err(ErrorKind::BadShape { expected, found: down.spec.shape.clone() })
                .in_tensor(&down.spec.name)
        }
    }
}

/// Outputs of B: [out, rank], or [out, rank, 1…] of a convolution.
fn outputs_of(up: TensorView<'_>, down: TensorView<'_>, rank: usize) -> Result<usize> {
    match up.spec.shape.as_slice() {
        [outputs, found, ones @ ..] if ones.iter().all(|&size| size == 1) => {
            if *found == rank {
                return Ok(*outputs);
            }
            let (down, up) = (down.spec.shape.clone(), up.spec.shape.clone());
            Err(ErrorKind::RankMismatch { down, up }.into())
        }
        _ => {
            let expected = "[out, rank] or [out, rank, 1…]".to_owned();
            Err(ErrorKind::BadShape { expected, found: up.spec.shape.clone() })
                .in_tensor(&up.spec.name)
        }
    }
}

fn read_alpha(view: TensorView<'_>) -> Result<f64> {
    check_length(view, 1)?;
    let alpha = match crate::adapter::tensor::element_type(view.spec.dtype) {
        Some(_) => read_f64(view, 0, 1)?.first().copied().unwrap_or(f64::NAN),
        None => integer_alpha(view)?,
    };
    if alpha.is_finite() {
        return Ok(alpha);
    }
    Err(ErrorKind::NonFinite { index: 0, value: alpha.to_string() }).in_tensor(&view.spec.name)
}

/// Some writers keep alpha as an integer.
fn integer_alpha(view: TensorView<'_>) -> Result<f64> {
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
