//! Blocks for new values: the arithmetic of ggml's reference quantisers (`quantize_row_q*_ref`), in f32, operation by
//! operation. Here are those whose step follows from a block's largest value; the others are looked for (`k_written.rs`,
//! `table_written.rs`).

use half::f16;

use super::search::Draw;
use super::{half, k_written, table_written};
use crate::weight::rounding::whole;

/// Puts the bytes of a block of values; those of a stored one keep its scales.
pub(super) type Put = fn(&[f32], Option<&[u8]>, Draw<'_>, &mut [u8]);

/// The types that are written, by ggml's number.
const WRITERS: [(u32, Put); 16] = [
    (2, |values, stored, draw, out| Q4_0.put(values, stored, draw, out)),
    (3, |values, stored, draw, out| Q4_1.put(values, stored, draw, out)),
    (6, |values, stored, draw, out| Q5_0.put(values, stored, draw, out)),
    (7, |values, stored, draw, out| Q5_1.put(values, stored, draw, out)),
    (8, |values, stored, draw, out| Q8_0.put(values, stored, draw, out)),
    (10, k_written::q2_k),
    (11, k_written::q3_k),
    (12, k_written::q4_k),
    (13, k_written::q5_k),
    (14, k_written::q6_k),
    (20, table_written::iq4_nl),
    (23, table_written::iq4_xs),
    (34, table_written::tq1_0),
    (35, table_written::tq2_0),
    (39, table_written::mxfp4),
    (40, table_written::nvfp4),
];

/// The writer of a type, if it has one.
pub(super) fn writer(kind: u32) -> Option<Put> {
    WRITERS.iter().find(|row| row.0 == kind).map(|row| row.1)
}

/// Elements of a block of the types here.
const ELEMENTS: usize = 32;

/// How one block's values become bytes, where its step is that of its largest.
#[derive(Debug, Clone, Copy)]
struct Simple {
    /// Bits of a code: 4, 5 or 8.
    bits: u32,
    /// Whether the block stores its least value beside the step.
    has_least: bool,
}

const Q4_0: Simple = Simple { bits: 4, has_least: false };
const Q4_1: Simple = Simple { bits: 4, has_least: true };
const Q5_0: Simple = Simple { bits: 5, has_least: false };
const Q5_1: Simple = Simple { bits: 5, has_least: true };
const Q8_0: Simple = Simple { bits: 8, has_least: false };

/// What codes are counted in: value = step · (code − middle) + least.
#[derive(Debug, Clone, Copy)]
struct Grid {
    step: f32,
    least: f32,
    /// 1 / step, by which values are multiplied; 0 if the step is.
    inverse: f32,
}

impl Simple {
    fn put(self, values: &[f32], stored: Option<&[u8]>, draw: Draw<'_>, out: &mut [u8]) {
        let grid = stored.map_or_else(|| self.fresh(values), |block| self.reused(block));
        out[..2].copy_from_slice(&f16::from_f32(grid.step).to_le_bytes());
        let mut at = 2;
        if self.has_least {
            out[2..4].copy_from_slice(&f16::from_f32(grid.least).to_le_bytes());
            at = 4;
        }
        let code = |element: usize| self.code(values[element], grid, draw(element));
        if self.bits == 8 {
            out[at..at + ELEMENTS].iter_mut().enumerate().for_each(|(n, byte)| *byte = code(n));
            return;
        }
        let mut codes = [0; ELEMENTS];
        codes.iter_mut().enumerate().for_each(|(element, slot)| *slot = code(element));
        if self.bits == 5 {
            let fifth = |bits: u32, (at, code): (usize, &u8)| bits | u32::from(code >> 4) << at;
            let fifths = codes.iter().enumerate().fold(0, fifth);
            out[at..at + 4].copy_from_slice(&fifths.to_le_bytes());
            at += 4;
        }
        let (low, high) = codes.split_at(ELEMENTS / 2);
        let pairs = low.iter().zip(high).map(|(low, high)| (low & 15) | (high << 4));
        out[at..].iter_mut().zip(pairs).for_each(|(byte, pair)| *byte = pair);
    }

    fn middle(self) -> f32 {
        if self.has_least { 0.0 } else { (1u32 << (self.bits - 1)) as f32 }
    }

    fn fresh(self, values: &[f32]) -> Grid {
        let grid = |step: f32, least: f32| Grid {
            step,
            least,
            inverse: if step == 0.0 { 0.0 } else { 1.0 / step },
        };
        if self.has_least {
            let low = values.iter().copied().fold(f32::INFINITY, f32::min);
            let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            return grid((high - low) / ((1u32 << self.bits) - 1) as f32, low);
        }
        // The first of the largest magnitudes, with its sign.
        let larger =
            |found: f32, value: &f32| if value.abs() > found.abs() { *value } else { found };
        let largest = values.iter().fold(0.0, larger);
        match self.bits {
            8 => grid(largest.abs() / 127.0, 0.0),
            _ => grid(largest / -self.middle(), 0.0),
        }
    }

    fn reused(self, block: &[u8]) -> Grid {
        let step = half(block, 0);
        let least = if self.has_least { half(block, 2) } else { 0.0 };
        Grid { step, least, inverse: if step == 0.0 { 0.0 } else { 1.0 / step } }
    }

    fn code(self, value: f32, grid: Grid, draw: Option<f32>) -> u8 {
        let scaled = (value - grid.least) * grid.inverse;
        if self.bits == 8 {
            // Halves go away from zero.
            let code = if draw.is_some() { whole(scaled, draw) } else { scaled.round() };
            return (code.clamp(-127.0, 127.0) as i8).cast_unsigned();
        }
        let most = ((1u32 << self.bits) - 1) as f32;
        let code = match draw {
            None => (scaled + (self.middle() + 0.5)).trunc(),
            Some(_) => whole(scaled, draw) + self.middle(),
        };
        code.clamp(0.0, most) as u8
    }
}
