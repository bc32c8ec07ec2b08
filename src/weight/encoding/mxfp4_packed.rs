//! MXFP4 as a matrix: two E2M1 numbers a byte, the low nibble first, and a power of two for every 32 columns
//! (compressed-tensors' mxfp4-pack-quantized; the experts of DeepSeek-V4, whose bytes are I8 and whose scale is
//! `.scale`).

use super::{Encoding, Recognised, module_of, stack};
use crate::error::Result;
use crate::format::Dtype;
use crate::weight::Stored;
use crate::weight::fp4::{Constant, Fp4};
use crate::weight::grid::Grid;
use crate::weight::model::Model;

pub(super) const ENCODING: Encoding = Encoding { name: "mxfp4_packed", companions: &[], recognise };

/// Columns that share a scale.
const GROUP: usize = 32;

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let packed = stored.name.strip_suffix(".weight_packed");
    let module = packed.unwrap_or_else(|| module_of(&stored.name));
    let ending = match (packed, stored.dtype) {
        (Some(_), Dtype::U8) => ["weight_scale", "weight_scale"],
        (None, Dtype::I8) => ["scale", "weight_scale_inv"],
        _ => return Ok(None),
    };
    let scale = ending.iter().find_map(|ending| model.tensor(&format!("{module}.{ending}")));
    let Some(scale) = scale.filter(|s| matches!(s.dtype, Dtype::U8 | Dtype::F8_E8M0)) else {
        return Ok(None);
    };
    let Some((count, rows, bytes)) = stack(&stored.shape) else { return Ok(None) };
    let columns = bytes * 2;
    let grid = Grid::blocks(scale.clone(), count, (rows, columns), (1, GROUP));
    let expected = || format!("[{rows}, {}]", columns.div_ceil(GROUP));
    let grid = grid.ok_or_else(|| scale.misfit(stored, expected()))?;
    let mut shape = stored.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = columns;
    }
    let codes = stored.clone();
    let constant = Constant::None;
    let codes = Fp4 { codes, grid, constant, columns, high_first: false, grain: 1 };
    let detail = format!("4 bit, groups of {GROUP}");
    let (name, parts) = (format!("{module}.weight"), [stored.name.as_str(), scale.name.as_str()]);
    let found = Recognised::new(shape, detail, codes);
    Ok(Some(model.recognised(&name, module, &parts, found)))
}
