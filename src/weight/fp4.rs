//! Two E2M1 numbers a byte, and a scale for every group of a row's columns: MXFP4, NVFP4.

use std::ops::Range;

use crate::error::{QuantError, Result};
use crate::math::kernel::small_float::E2M1;

use super::grid::Grid;
use super::{Decode, Stored};

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
