//! Blocks for new values: the arithmetic of ggml's reference quantisers (`quantize_row_q*_ref`), in f32, operation by
//! operation. Here are those whose step follows from a block's largest value; the others are looked for (`k_written.rs`,
//! `table_written.rs`).

use half::f16;

use super::search::Draw;
use super::{half, k_written, table_written};
use crate::math::kernel::loops::{Fold, Greatest, Largest, Least, Loop, widest};
use crate::weight::rounding::{Draws, low_byte, whole};

/// Values of whole blocks, and the bytes to put them in.
pub(super) struct Blocks<'a> {
    pub(super) values: &'a [f32],
    /// The stored blocks whose scales are kept.
    pub(super) kept: Option<&'a [u8]>,
    pub(super) draws: &'a Draws,
    /// Elements and bytes of a block.
    pub(super) size: (usize, usize),
    pub(super) bytes: &'a mut [u8],
}

/// Puts blocks.
pub(super) type Put = fn(Blocks<'_>);

/// The types that are written, by ggml's number.
const WRITERS: [(u32, Put); 16] = [
    (2, |blocks| widest(Simple::<4, false>(blocks))),
    (3, |blocks| widest(Simple::<4, true>(blocks))),
    (6, |blocks| widest(Simple::<5, false>(blocks))),
    (7, |blocks| widest(Simple::<5, true>(blocks))),
    (8, |blocks| widest(Simple::<8, false>(blocks))),
    (10, |blocks| blocks.each(k_written::q2_k)),
    (11, |blocks| blocks.each(k_written::q3_k)),
    (12, |blocks| blocks.each(k_written::q4_k)),
    (13, |blocks| blocks.each(k_written::q5_k)),
    (14, |blocks| blocks.each(k_written::q6_k)),
    (20, |blocks| blocks.each(table_written::iq4_nl)),
    (23, |blocks| blocks.each(table_written::iq4_xs)),
    (34, |blocks| blocks.each(table_written::tq1_0)),
    (35, |blocks| blocks.each(table_written::tq2_0)),
    (39, |blocks| blocks.each(table_written::mxfp4)),
    (40, |blocks| blocks.each(table_written::nvfp4)),
];

impl Blocks<'_> {
    /// Puts each of them; those of stored ones keep their scales.
    fn each(self, put: impl Fn(&[f32], Option<&[u8]>, Draw<'_>, &mut [u8])) {
        let (elements, size) = self.size;
        let blocks = self.values.chunks_exact(elements).zip(self.bytes.chunks_exact_mut(size));
        for (at, (values, block)) in blocks.enumerate() {
            let stored = self.kept.and_then(|kept| kept.get(at * size..(at + 1) * size));
            let draw = |element: usize| self.draws.get(at * elements + element);
            put(values, stored, &draw, block);
        }
    }
}

/// The writer of a type, if it has one.
pub(super) fn writer(kind: u32) -> Option<Put> {
    WRITERS.iter().find(|row| row.0 == kind).map(|row| row.1)
}

/// Elements of a block of the types here.
const ELEMENTS: usize = 32;

/// Blocks whose step is that of their largest value: of codes of 4, 5 or 8 bits, with or without the least value beside
/// the step.
struct Simple<'a, const BITS: u32, const HAS_LEAST: bool>(Blocks<'a>);

/// What codes are counted in: value = step · (code − middle) + least.
#[derive(Debug, Clone, Copy)]
struct Grid {
    step: f32,
    least: f32,
    /// 1 / step, by which values are multiplied; 0 if the step is.
    inverse: f32,
}

impl Grid {
    #[inline(always)]
    fn new(step: f32, least: f32) -> Self {
        Self { step, least, inverse: if step == 0.0 { 0.0 } else { 1.0 / step } }
    }
}

impl<const BITS: u32, const HAS_LEAST: bool> Loop for Simple<'_, BITS, HAS_LEAST> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let draws = self.0.draws;
        if draws.is_empty() { self.each(|_| None) } else { self.each(|at| draws.get(at)) }
    }
}

impl<const BITS: u32, const HAS_LEAST: bool> Simple<'_, BITS, HAS_LEAST> {
    const MIDDLE: f32 = if HAS_LEAST { 0.0 } else { (1u32 << (BITS - 1)) as f32 };
    const MOST: f32 = ((1u32 << BITS) - 1) as f32;

    #[inline(always)]
    fn each(self, draw: impl Fn(usize) -> Option<f32>) {
        let size = self.0.size.1;
        let blocks = self.0.values.as_chunks().0.iter().zip(self.0.bytes.chunks_exact_mut(size));
        for (at, (values, block)) in blocks.enumerate() {
            let grid = match self.0.kept.and_then(|kept| kept.get(at * size..(at + 1) * size)) {
                Some(stored) => {
                    let least = if HAS_LEAST { half(stored, 2) } else { 0.0 };
                    Grid::new(half(stored, 0), least)
                }
                None => Self::fresh(values),
            };
            Self::put(values, grid, |element| draw(at * ELEMENTS + element), block);
        }
    }

    #[inline(always)]
    fn put(
        values: &[f32; ELEMENTS],
        grid: Grid,
        draw: impl Fn(usize) -> Option<f32>,
        out: &mut [u8],
    ) {
        out[..2].copy_from_slice(&f16::from_f32(grid.step).to_le_bytes());
        let mut at = 2;
        if HAS_LEAST {
            out[2..4].copy_from_slice(&f16::from_f32(grid.least).to_le_bytes());
            at = 4;
        }
        let mut codes = [0; ELEMENTS];
        for (element, (code, value)) in codes.iter_mut().zip(values).enumerate() {
            *code = Self::code(*value, grid, draw(element));
        }
        if BITS == 8 {
            out[at..at + ELEMENTS].copy_from_slice(&codes);
            return;
        }
        if BITS == 5 {
            let fifth = |bits: u32, (at, code): (usize, &u8)| bits | u32::from(code >> 4) << at;
            let fifths = codes.iter().enumerate().fold(0, fifth);
            out[at..at + 4].copy_from_slice(&fifths.to_le_bytes());
            at += 4;
        }
        let (low, high) = codes.split_at(ELEMENTS / 2);
        let pairs = low.iter().zip(high).map(|(low, high)| (low & 15) | (high << 4));
        out[at..].iter_mut().zip(pairs).for_each(|(byte, pair)| *byte = pair);
    }

    #[inline(always)]
    fn fresh(values: &[f32; ELEMENTS]) -> Grid {
        if HAS_LEAST {
            let low = Least::all(f32::INFINITY, values);
            let high = Greatest::all(f32::NEG_INFINITY, values);
            // Of zeros with and without a sign the first is the least.
            let first = || values.iter().copied().find(|value| *value == 0.0).unwrap_or(low);
            return Grid::new((high - low) / Self::MOST, if low == 0.0 { first() } else { low });
        }
        let largest = extreme(values);
        match BITS {
            8 => Grid::new(largest.abs() / 127.0, 0.0),
            _ => Grid::new(largest / -Self::MIDDLE, 0.0),
        }
    }

    #[inline(always)]
    fn code(value: f32, grid: Grid, draw: Option<f32>) -> u8 {
        let scaled = (value - grid.least) * grid.inverse;
        if BITS == 8 {
            // Halves go away from zero.
            let code = if draw.is_some() { whole(scaled, draw) } else { scaled.round() };
            return low_byte(code.clamp(-127.0, 127.0));
        }
        let code = match draw {
            None => (scaled + (Self::MIDDLE + 0.5)).trunc(),
            Some(_) => whole(scaled, draw) + Self::MIDDLE,
        };
        low_byte(code.clamp(0.0, Self::MOST))
    }
}

/// The first of the largest magnitudes, with its sign; 0 without one.
#[inline(always)]
fn extreme(values: &[f32; ELEMENTS]) -> f32 {
    let size = Largest::all(0.0, values);
    let (mut up, mut down) = (false, false);
    for value in values {
        up |= *value == size;
        down |= *value == -size;
    }
    match (up, down) {
        _ if size == 0.0 => 0.0,
        (true, false) => size,
        (false, true) => -size,
        _ => values.iter().copied().find(|value| value.abs() == size).unwrap_or(size),
    }
}
