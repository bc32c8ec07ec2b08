//! Blocks of 32 with one scale, and a least value in the `_1` types. Of the nibbles, the low ones are the first half of
//! a block, the high ones the second.

use super::half;

/// Bytes as the elements that their nibbles are.
#[inline(always)]
pub(super) fn nibbles(bytes: &[u8], out: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let (first, second) = out.split_at_mut(bytes.len());
    let halves = bytes.len();
    for (at, (byte, (low, high))) in bytes.iter().zip(first.iter_mut().zip(second)).enumerate() {
        (*low, *high) = (value(at, byte & 15), value(at + halves, byte >> 4));
    }
}

/// d · (q − 8).
#[inline(always)]
pub(super) fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    nibbles(&block[2..18], out, |_, q| d * (f32::from(q) - 8.0));
}

/// d · q + m.
#[inline(always)]
pub(super) fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    nibbles(&block[4..20], out, |_, q| d * f32::from(q) + m);
}

/// The fifth bits of a block's elements.
#[inline(always)]
fn fifths(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// d · (q − 16), q of five bits.
#[inline(always)]
pub(super) fn q5_0(block: &[u8], out: &mut [f32]) {
    let (d, high) = (half(block, 0), fifths(block, 2));
    nibbles(&block[6..22], out, |at, q| d * ((u32::from(q) | (high >> at & 1) << 4) as f32 - 16.0));
}

/// d · q + m, q of five bits.
#[inline(always)]
pub(super) fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m, high) = (half(block, 0), half(block, 2), fifths(block, 4));
    nibbles(&block[8..24], out, |at, q| d * (u32::from(q) | (high >> at & 1) << 4) as f32 + m);
}

/// d · q.
#[inline(always)]
pub(super) fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (byte, slot) in block[2..34].iter().zip(out) {
        *slot = d * f32::from(byte.cast_signed());
    }
}
