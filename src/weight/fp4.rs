//! Two E2M1 numbers a byte, and a scale for every group of a row's columns: MXFP4, NVFP4.

use std::ops::Range;

use crate::error::{QuantError, Result};
use crate::math::kernel::loops::Largest;
use crate::math::kernel::small_float::{E2M1, E2M1_MAX, E4M3_MAX, to_e2m1};

use super::encode::largest;
use super::grid::{Grid, Scales};
use super::groups::{Round, nibbles, round};
use super::rounding::upper;
use super::{Decode, Encode, Encoded, Panel, Part, Stored, Writing};

/// One number that all scales of a tensor share.
#[derive(Debug)]
pub(super) enum Constant {
    None,
    /// compressed-tensors: the scale is divided by it.
    Divide(Stored),
    /// ModelOpt, ComfyUI: the scale is multiplied with it.
    Multiply(Stored),
}

#[derive(Debug)]
pub(super) struct Fp4 {
    pub(super) codes: Stored,
    pub(super) grid: Grid,
    pub(super) constant: Constant,
    /// Columns, twice the bytes of a row.
    pub(super) columns: usize,
    /// Whether the high nibble comes first.
    pub(super) high_first: bool,
    /// Rows whose scales lie together.
    pub(super) grain: usize,
}

impl Decode for Fp4 {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let constant = match &self.constant {
            Constant::None => None,
            Constant::Divide(stored) | Constant::Multiply(stored) => Some(stored.scalar()?),
        };
        let divide = matches!(self.constant, Constant::Divide(_));
        let scales = self.grid.read(rows.clone())?;
        let mut scratch = Vec::new();
        let stride = self.columns / 2;
        let bytes = self.codes.bytes(rows.start * stride..rows.end * stride, &mut scratch)?;
        let group = self.grid.group().max(2);
        let mut numbers = E2M1;
        for ((row, codes), values) in
            rows.zip(bytes.chunks(stride.max(1))).zip(out.chunks_mut(self.columns.max(1)))
        {
            let groups = codes.chunks(group / 2).zip(values.chunks_mut(group));
            for ((codes, values), scale) in groups.zip(self.grid.row(&scales, row)) {
                let scale = match constant {
                    None => *scale,
                    Some(constant) if divide => *scale / constant,
                    Some(constant) => *scale * constant,
                };
                for (number, code) in numbers.iter_mut().zip(E2M1) {
                    *number = code * scale;
                }
                for (byte, pair) in codes.iter().zip(values.as_chunks_mut::<2>().0) {
                    let (lower, upper) =
                        (numbers[usize::from(byte & 15)], numbers[usize::from(byte >> 4)]);
                    *pair = if self.high_first { [upper, lower] } else { [lower, upper] };
                }
            }
        }
        match out.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(_) => {
                let reason = "its scales and its one constant make no finite number".to_owned();
                Err(self.codes.error(QuantError::BadState { reason }))
            }
        }
    }

    fn grain(&self) -> usize {
        self.grain
    }
}

/// Codes of E2M1 numbers: the nearest, a tie to the even code or to the lower one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nearest {
    pub(super) even: bool,
}

impl Round for Nearest {
    type Step = f32;

    #[inline(always)]
    fn round(self, value: f32, step: f32, draw: Option<f32>) -> (u8, f32) {
        let scaled = if step == 0.0 { 0.0 } else { value / step };
        let sign = if scaled < 0.0 { 8 } else { 0 };
        let (code, number) = match draw {
            None => to_e2m1(scaled.abs(), self.even),
            Some(draw) => drawn(scaled.abs(), draw),
        };
        let number = number * step;
        (sign | code, if sign == 0 { number } else { -number })
    }
}

/// The magnitude below a number or the one above it, as a draw decides.
#[inline(always)]
fn drawn(size: f32, draw: f32) -> (u8, f32) {
    let size = if size > E2M1_MAX { E2M1_MAX } else { size };
    let number = |code: u8| E2M1[usize::from(code)];
    let nearest = to_e2m1(size, true).0;
    let low = if number(nearest) > size { nearest - 1 } else { nearest };
    let code = match low {
        7 => low,
        _ if upper(number(low), number(low + 1), size, draw) => low + 1,
        _ => low,
    };
    (code, number(code))
}

/// What compressed-tensors stores for a group of zeros.
const ZERO_GROUP: f32 = 0.125;
/// The largest scale times the largest number.
const MOST: f32 = E4M3_MAX * E2M1_MAX;

impl Fp4 {
    /// The number of the whole tensor for its largest magnitude.
    fn constant(&self, largest: f32) -> f32 {
        match self.constant {
            Constant::None => 1.0,
            _ if largest == 0.0 => 1.0,
            Constant::Divide(_) => MOST / largest,
            Constant::Multiply(_) => largest / MOST,
        }
    }

    /// The scale of a group for its largest magnitude, before it is rounded to E4M3.
    fn scale(&self, largest: f32, constant: f32) -> f32 {
        match self.constant {
            // compressed-tensors (generate_gparam, calculate_qparams), ModelOpt (NVFP4QTensor).
            Constant::Multiply(_) if largest == 0.0 => 1.0,
            Constant::Multiply(_) => (largest / (E2M1_MAX * constant)).clamp(LEAST_SCALE, E4M3_MAX),
            _ => (constant * (largest / E2M1_MAX)).clamp(-E4M3_MAX, E4M3_MAX),
        }
    }

    /// What codes are multiplied with, of the scales as they are stored.
    fn steps(&self, scales: &Scales, constant: f32) -> Scales {
        match self.constant {
            Constant::None => scales.clone(),
            Constant::Divide(_) => scales.map(|scale| scale / constant),
            Constant::Multiply(_) => scales.map(|scale| scale * constant),
        }
    }

    fn stored_constant(&self) -> Option<&Stored> {
        match &self.constant {
            Constant::None => None,
            Constant::Divide(stored) | Constant::Multiply(stored) => Some(stored),
        }
    }
}

/// The least E4M3 number above 0.
const LEAST_SCALE: f32 = 0.001_953_125;

impl Encode for Fp4 {
    fn parts(&self, writing: Writing) -> Vec<Part> {
        let fresh = writing.scales == super::Scales::Fresh;
        let companions = [Some(self.grid.stored()), self.stored_constant()].into_iter().flatten();
        let codes = std::iter::once(&self.codes);
        codes.chain(companions.filter(|_| fresh)).map(Part::like).collect()
    }

    fn grain(&self) -> usize {
        self.grain
    }

    fn surveys(&self, writing: Writing) -> bool {
        writing.scales == super::Scales::Fresh
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        let rows = panel.rows.clone();
        let steps = if panel.fresh() {
            let constant = self.constant(largest(panel.survey));
            let most = self.grid.fold::<Largest>(rows.clone(), self.columns, panel.values);
            let mut scales = most.map(|largest| self.scale(largest, constant));
            if matches!(self.constant, Constant::Divide(_)) {
                // A scale that rounds to 0 is replaced after it is rounded.
                self.grid.stored().rounded(0, scales.values_mut())?;
                scales = scales.map(|scale| if scale == 0.0 { ZERO_GROUP } else { scale });
            }
            self.grid.put(1, &mut scales, out)?;
            self.steps(&scales, constant)
        } else {
            let constant = self.stored_constant().map(Stored::scalar).transpose()?;
            self.steps(&self.grid.read(rows.clone())?, constant.unwrap_or(1.0))
        };
        let steps = self.grid.of_rows(rows, &steps);
        let size = (self.columns, self.grid.group());
        let codes = round(Nearest { even: true }, panel, size, &steps, &mut out.values);
        let bytes = nibbles(&codes, self.high_first, 0);
        out.put(0, panel.rows.start * self.columns / 2, bytes);
        Ok(())
    }

    fn rest(&self, writing: Writing, survey: &[f32], out: &mut Encoded) -> Result<()> {
        if let Some(stored) = self.stored_constant().filter(|_| self.surveys(writing)) {
            let mut constant = [self.constant(largest(survey))];
            out.put(2, 0, stored.rounded(0, &mut constant)?);
        }
        Ok(())
    }
}
