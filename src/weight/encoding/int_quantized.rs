//! Whole numbers of eight bits with a scale for all, a row or a group (compressed-tensors' int-quantized).
//!
//! value = (code − zero point) · f32(scale); the subtraction is of whole numbers.

use std::ops::Range;

use super::fp8_scaled::grid;
use super::{Encoding, Recognised, module_of};
use crate::error::Result;
use crate::format::Dtype;
use crate::weight::codes::Code;
use crate::weight::grid::Grid;
use crate::weight::model::Model;
use crate::weight::{Decode, Stored};

pub(super) const ENCODING: Encoding = Encoding { name: "int_quantized", recognise };

#[derive(Debug)]
struct Integers {
    codes: Stored,
    grid: Grid,
    zeros: Option<Stored>,
    columns: usize,
    /// Groups of one row; 0, if all rows have one zero point.
    groups: usize,
}

pub(super) fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let module = module_of(&stored.name);
    let scale = model.tensor(&format!("{module}.weight_scale"));
    let (Dtype::I8, Some(scale)) = (stored.dtype, scale) else { return Ok(None) };
    let columns = stored.shape.last().copied().unwrap_or(1);
    let (grid, what) = grid(stored, &scale)?;
    let zeros = model.tensor(&format!("{module}.weight_zero_point"));
    if let Some(zeros) = &zeros
        && (zeros.dtype != Dtype::I8 || zeros.elements() != scale.elements())
    {
        return Err(zeros.misfit(stored, format!("{:?} (I8)", scale.shape)));
    }
    let groups = if grid.is_whole() { 0 } else { columns.div_ceil(grid.group().max(1)) };
    let zero_name = format!("{module}.weight_zero_point");
    let parts = [stored.name.as_str(), scale.name.as_str(), zero_name.as_str()];
    let detail = format!("I8, {what}");
    let codes = Integers { codes: stored.clone(), grid, zeros, columns, groups };
    let found = Recognised::new(stored.shape.clone(), detail, codes);
    Ok(Some(model.recognised(&stored.name, module, &parts, found)))
}

impl Decode for Integers {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        Code::Int8.widen(&self.codes, rows.start * self.columns, out)?;
        if let Some(stored) = &self.zeros {
            let mut scratch = Vec::new();
            let range = match self.groups {
                0 => 0..1,
                groups => rows.start * groups..rows.end * groups,
            };
            let zeros = stored.bytes(range, &mut scratch)?;
            for (at, values) in out.chunks_mut(self.columns.max(1)).enumerate() {
                let first = at * self.groups;
                for (number, group) in values.chunks_mut(self.grid.group().max(1)).enumerate() {
                    let zero = zeros.get(first + number).copied().unwrap_or_default();
                    let zero = f32::from(zero.cast_signed());
                    for value in group {
                        *value -= zero;
                    }
                }
            }
        }
        self.grid.multiply(rows, self.columns, out)
    }
}
