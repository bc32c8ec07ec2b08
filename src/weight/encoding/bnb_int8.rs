//! bitsandbytes' LLM.int8: a byte a weight, and the largest magnitude of every row.
//!
//! `value = (code · SCB[row]) · 0.0078740157`, in f32, rounded after each product as the package does
//! (`backends/default/ops.py`).

use std::ops::Range;

use super::{Encoding, Recognised, module_of};
use crate::error::Result;
use crate::format::Dtype;
use crate::weight::codes::Code;
use crate::weight::grid::Grid;
use crate::weight::model::Model;
use crate::weight::{Decode, Stored};

pub(super) const ENCODING: Encoding = Encoding { name: "bnb_int8", recognise };

/// 1/127, as the package writes it (0.007874015718698502) in f32.
const PER_STEP: f32 = 0.007_874_016;

#[derive(Debug)]
struct Rows {
    codes: Stored,
    grid: Grid,
    columns: usize,
}

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let module = module_of(&stored.name);
    let largest = model.tensor(&format!("{module}.SCB"));
    let (Dtype::I8, Some(largest)) = (stored.dtype, largest) else { return Ok(None) };
    let [rows, columns] = *stored.shape.as_slice() else {
        return Err(stored.misfit(&largest, "a matrix"));
    };
    let layout = format!("{module}.weight_format");
    if let Some(layout) = model.tensor(&layout)
        && layout.all()?.iter().any(|byte| *byte != 0)
    {
        let what = "a weight in one of bitsandbytes' tiled layouts (weight_format is not 0)";
        return Err(Model::unsupported(&layout, what));
    }
    let grid = Grid::blocks(largest.clone(), 1, (rows, columns), (1, columns));
    let grid = grid.ok_or_else(|| largest.misfit(stored, format!("[{rows}]")))?;
    let parts = [stored.name.as_str(), largest.name.as_str(), layout.as_str()];
    let codes = Rows { codes: stored.clone(), grid, columns };
    let found = Recognised::new(stored.shape.clone(), "I8, a scale a row".to_owned(), codes);
    Ok(Some(model.recognised(&stored.name, module, &parts, found)))
}

impl Decode for Rows {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        Code::Int8.widen(&self.codes, rows.start * self.columns, out)?;
        self.grid.multiply(rows, self.columns, out)?;
        for value in out {
            *value *= PER_STEP;
        }
        Ok(())
    }
}
