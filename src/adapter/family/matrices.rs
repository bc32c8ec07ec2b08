//! Factors and matrices that forms are read from.

use super::{Source, check_length};
use crate::adapter::convention::Part;
use crate::adapter::slice::find;
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, Result};
use crate::format::Checkpoint;
use crate::math::Matrix;

/// A stored tensor as a rows × columns matrix in f64.
pub(super) fn read_matrix(
    file: &Checkpoint,
    name: &str,
    rows: usize,
    columns: usize,
) -> Result<Matrix> {
    let view = find(file, name)?;
    check_length(view, rows * columns)?;
    let values = read_f64(view, 0, rows * columns)?;
    Ok(Matrix::from_row_iterator(rows, columns, values))
}

/// Σⱼ core[i, j, k] · down[j, c], as i × (c, k); core: r × s × kernel, down: s × channels, `inputs` is
/// channels × kernel.
pub(super) fn folded_core(
    file: &Checkpoint,
    core: &str,
    down: &str,
    (rank, inner): (usize, usize),
    inputs: usize,
) -> Result<Matrix> {
    let (core, down) = (find(file, core)?, find(file, down)?);
    let kernel = core.spec.elements() / (rank * inner).max(1);
    let channels = inputs / kernel.max(1);
    check_length(core, rank * inner * kernel)?;
    check_length(down, inner * channels)?;
    let core = read_f64(core, 0, rank * inner * kernel)?;
    let down = read_f64(down, 0, inner * channels)?;
    let mut folded = Matrix::zeros(rank, channels * kernel);
    for (at, weight) in core.iter().enumerate() {
        let (level, position) = (at / (inner * kernel), at % kernel);
        let row = down.chunks(channels.max(1)).nth(at / kernel % inner).unwrap_or_default();
        for (channel, value) in row.iter().enumerate() {
            folded[(level, channel * kernel + position)] += weight * value;
        }
    }
    Ok(folded)
}

/// The names of a module's A and B, and whether they are an embedding's.
pub(super) fn factors<'a>(source: &Source<'a>) -> Result<(&'a str, &'a str, bool)> {
    let pairs = [(Part::Down, Part::Up, false), (Part::EmbeddingDown, Part::EmbeddingUp, true)];
    for (down, up, embedding) in pairs {
        let (present, missing) = match (source.parts.get(&down), source.parts.get(&up)) {
            (Some(down), Some(up)) => return Ok((down, up, embedding)),
            (Some(_), None) => ("A (down)", "B (up)"),
            (None, Some(_)) => ("B (up)", "A (down)"),
            (None, None) => continue,
        };
        return Err(ErrorKind::MissingFactor { present, missing }.into());
    }
    Err(ErrorKind::MissingFactor { present: "an alpha or a bias", missing: "A and B" }.into())
}
