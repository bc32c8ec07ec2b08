//! bitsandbytes' LLM.int8: a byte a weight, and the largest magnitude of every row.
//!
//! `value = (code · SCB[row]) · 0.0078740157`, in f32, rounded after each product as the package does
//! (`backends/default/ops.py`).

use std::ops::Range;
use std::sync::Arc;

use super::{Encoding, Recognised, Setting, module_of};
use crate::error::Result;
use crate::format::Dtype;
use crate::math::kernel::loops::Largest;
use crate::weight::codes::Code;
use crate::weight::grid::Grid;
use crate::weight::groups::{Round, round};
use crate::weight::model::Model;
use crate::weight::rounding::{low_byte, whole};
use crate::weight::{Decode, Encode, Encoded, Panel, Part, Stored, Writing};

pub(super) const ENCODING: Encoding = Encoding { name: "bnb_int8", recognise };

/// 1/127, as the package writes it (0.007874015718698502) in f32.
const PER_STEP: f32 = 0.007_874_016;

/// What transformers' `load_in_8bit` makes of a weight.
pub(super) const INT8: Setting = Setting {
    name: "int8",
    writer: |weight, (rows, columns)| {
        let name = format!("{}.SCB", module_of(&weight.name));
        let largest = weight.unwritten(name, Dtype::F32, vec![rows]);
        let codes = weight.unwritten(weight.name.clone(), Dtype::I8, vec![rows, columns]);
        let grid = Grid::blocks(largest, 1, (rows, columns), (1, columns))?;
        Some(Arc::new(Rows { codes, grid, columns }))
    },
};

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
    let found = Recognised::written(stored.shape.clone(), "I8, a scale a row".to_owned(), codes);
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

/// As the package quantises rows (`backends/default/ops.py`, int8_vectorwise_quant); of a row of zeros the codes are 0,
/// which the package makes no numbers.
impl Encode for Rows {
    fn parts(&self, writing: Writing) -> Vec<Part> {
        let fresh = writing.scales == crate::weight::Scales::Fresh;
        let largest = Some(self.grid.stored()).filter(|_| fresh);
        [Some(&self.codes), largest].into_iter().flatten().map(Part::like).collect()
    }

    fn grain(&self) -> usize {
        1
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        let rows = panel.rows.clone();
        let largest = if panel.fresh() {
            let mut largest = self.grid.fold::<Largest>(rows.clone(), self.columns, panel.values);
            self.grid.put(1, &mut largest, out)?;
            largest
        } else {
            self.grid.read(rows.clone())?
        };
        let factor = |largest: f32| if largest == 0.0 { 0.0 } else { 127.0 / largest };
        let steps = self.grid.pairs(rows, &largest, &largest.map(factor));
        let size = (self.columns, self.columns);
        let codes = round(Steps, panel, size, &steps, &mut out.values);
        out.put(0, panel.rows.start * self.columns, codes);
        Ok(())
    }
}

/// Codes by a row's largest magnitude and what its values are multiplied with.
#[derive(Debug, Clone, Copy)]
struct Steps;

impl Round for Steps {
    type Step = (f32, f32);

    #[inline(always)]
    fn round(self, value: f32, (largest, factor): Self::Step, draw: Option<f32>) -> (u8, f32) {
        // Codes know no zero with a sign.
        let code = whole(value * factor, draw).clamp(-128.0, 127.0) + 0.0;
        (low_byte(code), code * largest * PER_STEP)
    }
}
