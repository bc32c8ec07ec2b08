//! Bytes that stand for numbers, and a grid of scales to multiply them with: 8-bit floats as everybody stores them.
//! What differs is how they are written.

use std::ops::Range;

use super::codes::{By, Code};
use super::encode::{Encode, Encoded, Panel, Part, largest};
use super::grid::{Grid, Scales};
use super::{Decode, Stored, Writing};
use crate::error::Result;
use crate::format::Dtype;
use crate::math::kernel::loops::Largest;
use crate::math::kernel::small_float::{e8m0, exponent, to_e8m0};

/// The least scale that compressed-tensors writes: f32's distance from 1 to the next number.
const LEAST: f32 = f32::EPSILON;

/// Whose arithmetic makes scales and codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// transformers (`integrations/finegrained_fp8.py`): codes are w · (448/largest), the scale is that factor's
    /// reciprocal, and 1 where all is 0.
    Reciprocal,
    /// The same with scales that are powers of two, whatever their dtype: they are rounded up before codes are made.
    Powers,
    /// compressed-tensors, FBGEMM, ModelOpt: scale = largest/448 in its dtype, codes are w / scale.
    Quotient,
    /// ComfyUI (comfy-kitchen): scale = largest/448, codes are w · (1/scale).
    Comfy,
}

#[derive(Debug)]
pub(super) struct Scaled {
    pub(super) codes: Stored,
    pub(super) code: Code,
    pub(super) grid: Grid,
    pub(super) columns: usize,
    pub(super) writer: Writer,
}

impl Decode for Scaled {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.code.widen(&self.codes, rows.start * self.columns, out)?;
        self.grid.multiply(rows, self.columns, out)
    }
}

impl Scaled {
    /// Scales for these largest magnitudes, before they are rounded to their dtype.
    fn scales(&self, largest: &Scales) -> Scales {
        let most = self.code.largest();
        largest.map(|largest| match self.writer {
            Writer::Quotient => (largest / most).max(LEAST),
            _ if largest == 0.0 => 1.0,
            Writer::Comfy => largest / most,
            Writer::Powers => power_above(1.0 / (most / largest)),
            Writer::Reciprocal => 1.0 / (most / largest),
        })
    }

    /// What values are multiplied with or, [`Writer::Quotient`], divided by.
    fn factors(&self, largest: Option<&Scales>, scales: &Scales) -> Scales {
        let most = self.code.largest();
        match (self.writer, largest) {
            (Writer::Quotient, _) => scales.clone(),
            (Writer::Reciprocal, Some(largest)) if self.grid.stored().dtype == Dtype::F32 => {
                largest.map(|largest| if largest == 0.0 { 1.0 } else { most / largest })
            }
            _ => scales.map(|scale| 1.0 / scale),
        }
    }
}

/// The least power of two that is not below a positive number.
fn power_above(value: f32) -> f32 {
    let below = e8m0(to_e8m0(exponent(value)));
    if below < value { below * 2.0 } else { below }
}

impl Encode for Scaled {
    fn parts(&self, writing: Writing) -> Vec<Part> {
        let scale = Some(self.grid.stored()).filter(|_| writing.scales == super::Scales::Fresh);
        [Some(&self.codes), scale].into_iter().flatten().map(Part::like).collect()
    }

    fn grain(&self) -> usize {
        self.grid.grain()
    }

    fn surveys(&self, writing: Writing) -> bool {
        self.grid.is_single() && writing.scales == super::Scales::Fresh
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        let (scales, factors) = if panel.fresh() {
            let most = if self.grid.is_single() {
                Grid::single(largest(panel.survey))
            } else {
                self.grid.fold::<Largest>(panel.rows.clone(), self.columns, panel.values)
            };
            let mut scales = self.scales(&most);
            if self.grid.is_single() {
                self.grid.stored().rounded(0, scales.values_mut())?;
            } else {
                self.grid.put(1, &mut scales, out)?;
            }
            let factors = self.factors(Some(&most), &scales);
            (scales, factors)
        } else {
            let scales = self.grid.read(panel.rows.clone())?;
            let factors = self.factors(None, &scales);
            (scales, factors)
        };
        let by = if self.writer == Writer::Quotient { By::Quotient } else { By::Product };
        let steps = self.grid.pairs(panel.rows.clone(), &scales, &factors);
        let size = (self.columns, self.grid.group());
        let codes = self.code.round(by, panel, size, &steps, &mut out.values);
        out.put(0, panel.rows.start * self.columns, codes);
        Ok(())
    }

    fn rest(&self, writing: Writing, survey: &[f32], out: &mut Encoded) -> Result<()> {
        if self.surveys(writing) {
            let mut scale = self.scales(&Grid::single(largest(survey)));
            self.grid.put(1, &mut scale, out)?;
        }
        Ok(())
    }
}
