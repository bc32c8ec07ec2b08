//! 8-bit floats with one scale for all, for a row, or for a group of a row's columns: compressed-tensors, FBGEMM,
//! ModelOpt, MXFP8 (scales that are powers of two, 32 columns each).
//!
//! value = f32(code) · f32(scale).

use std::sync::Arc;

use serde_json::Value;

use super::fp8_block::scale_of;
use super::{Encoding, Recognised, module_of, stack};
use crate::error::{QuantError, Result};
use crate::format::Dtype;
use crate::weight::codes::Code;
use crate::weight::float8::{Scaled, Writer};
use crate::weight::grid::Grid;
use crate::weight::model::Model;
use crate::weight::{Encode, Stored};

pub(super) const ENCODING: Encoding =
    Encoding { name: "fp8_scaled", companions: &[".weight_scale"], recognise };

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let Some(code) = Code::of(stored.dtype).filter(|code| *code != Code::Int8) else {
        return Ok(None);
    };
    let Some((scale, _)) = scale_of(model, &stored.name) else { return Ok(None) };
    let module = module_of(&stored.name);
    let (grid, what) = grid(stored, &scale)?;
    check_strategy(model, module, &scale, what)?;
    let detail = format!("{}, {what}", stored.dtype);
    let columns = stored.shape.last().copied().unwrap_or(1);
    let part = scale.name;
    let (powers, writer) = (matches!(scale.dtype, Dtype::F8_E8M0 | Dtype::U8), Writer::Quotient);
    let codes = Scaled { codes: stored.clone(), code, grid, columns, writer };
    let shape = stored.shape.clone();
    let found = if powers {
        // MXFP8: its writers differ.
        Recognised::new(shape, detail, codes)
    } else {
        Recognised::written(shape, detail, codes)
    };
    Ok(Some(model.recognised(&stored.name, module, &[&stored.name, &part], found)))
}

/// The weight of this name in 8-bit floats with a scale a row, as compressed-tensors has them.
pub(in crate::weight) fn rows(
    stored: &Stored,
    weight: &str,
    (rows, columns): (usize, usize),
) -> Option<Arc<dyn Encode>> {
    let scale = stored.unwritten(format!("{weight}_scale"), Dtype::F32, vec![rows, 1]);
    let codes = stored.unwritten(weight.to_owned(), Dtype::F8_E4M3, vec![rows, columns]);
    Some(Arc::new(Scaled {
        code: Code::of(codes.dtype)?,
        codes,
        grid: Grid::blocks(scale, 1, (rows, columns), (1, columns))?,
        columns,
        writer: Writer::Quotient,
    }))
}

/// The grid of a scale that is no block grid, by its shape.
pub(super) fn grid(stored: &Stored, scale: &Stored) -> Result<(Grid, &'static str)> {
    let (count, rows, columns) = stack(&stored.shape).unwrap_or((1, 1, stored.elements()));
    let misfit = || {
        let expected =
            format!("[1], [{rows}, 1], or a whole number of columns of {columns} a scale");
        scale.misfit(stored, expected)
    };
    if scale.elements() == 1 {
        return Ok((Grid::whole(scale.clone(), (rows * count, columns)), "one scale"));
    }
    let (high, wide, what) = match *scale.shape.as_slice() {
        // One a row; of a stack, one a matrix.
        [length] if length == rows * count => (1, columns, "a scale a row"),
        [length] if length == count => (rows, columns, "a scale a matrix"),
        [.., high, wide] if wide > 0 && columns % wide == 0 => match (high, columns / wide) {
            (1, group) if group == columns => (rows, columns, "a scale a matrix"),
            (1, group) => (rows, group, "a scale a column"),
            (high, group) if high == rows && group == columns => (1, columns, "a scale a row"),
            (high, group) if high == rows => (1, group, "groups of columns"),
            _ => return Err(misfit()),
        },
        _ => return Err(misfit()),
    };
    let grid = Grid::blocks(scale.clone(), count, (rows, columns), (high, wide));
    Ok((grid.ok_or_else(misfit)?, what))
}

/// What compressed-tensors' config says must be what the scale's shape says.
fn check_strategy(model: &Model<'_>, module: &str, scale: &Stored, what: &str) -> Result<()> {
    let Some(group) = model.config.group(model.module(module)) else { return Ok(()) };
    let Some(strategy) = group.get("strategy").and_then(Value::as_str) else { return Ok(()) };
    let fits = match strategy {
        "tensor" => matches!(what, "one scale" | "a scale a matrix"),
        "channel" => matches!(what, "a scale a row" | "one scale"),
        "block" => false,
        _ => true,
    };
    if fits {
        return Ok(());
    }
    let config = format!("the scale's strategy is {strategy}");
    let tensors = format!("there is {what} (shape {:?})", scale.shape);
    Err(scale.error(QuantError::Conflict { config, tensors }))
}
