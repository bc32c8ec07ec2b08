//! NVFP4: two E2M1 numbers a byte, the low nibble first, an E4M3 scale for every 16 columns, and one number for the
//! whole tensor. compressed-tensors stores 448·6/largest and divides by it; ModelOpt stores its reciprocal and
//! multiplies.
//!
//! value = E2M1 · (f32(scale) / global), or E2M1 · (f32(scale) · global), the scale first.

use super::{Encoding, Recognised, module_of, stack};
use crate::error::Result;
use crate::format::Dtype;
use crate::weight::Stored;
use crate::weight::fp4::{Constant, Fp4};
use crate::weight::grid::Grid;
use crate::weight::model::Model;

pub(super) const ENCODING: Encoding =
    Encoding { name: "nvfp4", companions: &[".weight_scale_2", ".weight_global_scale"], recognise };

/// Columns that share a scale.
pub(super) const GROUP: usize = 16;
const SCHEME: &str = "NVFP4";

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let packed = stored.name.strip_suffix(".weight_packed");
    if stored.dtype != Dtype::U8 || (packed.is_none() && !stored.name.ends_with(".weight")) {
        return Ok(None);
    }
    let module = packed.unwrap_or_else(|| module_of(&stored.name));
    let scale = model.tensor(&format!("{module}.weight_scale"));
    let Some(scale) = scale.filter(|scale| scale.dtype == Dtype::F8_E4M3) else {
        return if packed.is_some() {
            model
                .need(stored, &format!("{module}.weight_scale"), SCHEME)
                .and_then(|scale| Err(scale.misfit(stored, "F8_E4M3, or U8 for MXFP4")))
        } else {
            Ok(None)
        };
    };
    refuse_smoothed(model, module)?;
    let constant = match packed {
        Some(_) => format!("{module}.weight_global_scale"),
        None => format!("{module}.weight_scale_2"),
    };
    let constant = model.need(stored, &constant, SCHEME)?;
    if constant.elements() != 1 {
        return Err(constant.misfit(stored, "[1]"));
    }
    let Some((count, rows, bytes)) = stack(&stored.shape) else { return Ok(None) };
    let columns = bytes * 2;
    let grid = Grid::blocks(scale.clone(), count, (rows, columns), (1, GROUP));
    let expected = || format!("[{rows}, {}]", columns.div_ceil(GROUP));
    let grid = grid.ok_or_else(|| scale.misfit(stored, expected()))?;
    let mut shape = stored.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = columns;
    }
    let parts =
        [stored.name.as_str(), scale.name.as_str(), constant.name.as_str()].map(str::to_owned);
    let constant =
        if packed.is_some() { Constant::Divide(constant) } else { Constant::Multiply(constant) };
    let codes = stored.clone();
    let codes = Fp4 { codes, grid, constant, columns, high_first: false, grain: 1 };
    let found = Recognised::written(shape, format!("4 bit, groups of {GROUP}"), codes);
    let name = format!("{module}.weight");
    Ok(Some(model.recognised(&name, module, &parts.each_ref().map(String::as_str), found)))
}

/// ModelOpt may scale a layer's input as well: the codes alone are then not the layer's weight.
pub(super) fn refuse_smoothed(model: &Model<'_>, module: &str) -> Result<()> {
    match model.tensor(&format!("{module}.pre_quant_scale")) {
        None => Ok(()),
        Some(scale) => {
            let what = "a weight whose input is scaled too (pre_quant_scale)";
            Err(Model::unsupported(&scale, what))
        }
    }
}
