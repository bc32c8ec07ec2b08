//! Types whose codes are places in a table, for new values: IQ4, MXFP4, NVFP4 (ggml's `quantize_row_iq4_nl_impl`,
//! `quantize_row_mxfp4_ref`, `quantize_row_nvfp4_ref`), and the two of −1, 0 and 1 (`quantize_row_tq*_0_ref`).

use half::f16;

use super::half;
use super::nonlinear::{IQ4, TWICE, mxfp4_step, nvfp4_step};
use super::search::{Draw, extreme, nearest, of_table};
use crate::math::kernel::small_float::E4M3_MAX;
use crate::weight::fp4::Nearest;
use crate::weight::groups::Round;
use crate::weight::rounding::upper;
use crate::weight::rounding::whole;

/// The place of the nearest number of IQ4's table; the larger one where two are as near.
fn place(value: f32) -> usize {
    let twice = value + value;
    let is_above = |pair: &&[f32]| twice >= pair[0] + pair[1];
    IQ4.windows(2).take_while(is_above).count()
}

/// As [`place`], or by a draw one of the two numbers that the value is between.
fn drawn(value: f32, draw: Option<f32>) -> u8 {
    let Some(draw) = draw else { return place(value) as u8 };
    let above = IQ4.iter().take_while(|number| **number <= value).count();
    match (above.checked_sub(1), IQ4.get(above)) {
        (Some(below), Some(next)) if !upper(IQ4[below], *next, value, draw) => below as u8,
        _ => above.min(15) as u8,
    }
}

/// Nibbles of 32 codes: the first half low, the second high.
fn put_nibbles(code: impl Fn(usize) -> u8, half: usize, out: &mut [u8]) {
    for (at, byte) in out.iter_mut().enumerate().take(half) {
        *byte = code(at) | code(at + half) << 4;
    }
}

fn reciprocal(step: f32) -> f32 {
    if step == 0.0 { 0.0 } else { 1.0 / step }
}

/// IQ4_NL.
pub(super) fn iq4_nl(values: &[f32], stored: Option<&[u8]>, draw: Draw<'_>, out: &mut [u8]) {
    let step = match stored {
        Some(block) => half(block, 0),
        None => of_table(values, &IQ4, place),
    };
    out[..2].copy_from_slice(&f16::from_f32(step).to_le_bytes());
    let inverse = reciprocal(step);
    put_nibbles(|at| drawn(inverse * values[at], draw(at)), 16, &mut out[2..]);
}

/// IQ4_XS.
pub(super) fn iq4_xs(values: &[f32], stored: Option<&[u8]>, draw: Draw<'_>, out: &mut [u8]) {
    let mut levels = [0_i32; 8];
    let d = match stored {
        Some(block) => {
            out.copy_from_slice(block);
            let high = u16::from_le_bytes([block[2], block[3]]);
            for (group, level) in levels.iter_mut().enumerate() {
                let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
                *level = i32::from(u16::from(low) | (high >> (group * 2) & 3) << 4) - 32;
            }
            half(block, 0)
        }
        None => {
            let mut scales = [0.0_f32; 8];
            for (slot, values) in scales.iter_mut().zip(values.chunks_exact(32)) {
                *slot = of_table(values, &IQ4, place);
            }
            let d = -extreme(&scales).0 / 32.0;
            let inverse = reciprocal(d);
            for (level, scale) in levels.iter_mut().zip(scales) {
                *level = nearest(inverse * scale).clamp(-32, 31);
            }
            d
        }
    };
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    let (mut high, mut low) = (0_u16, [0_u8; 4]);
    let groups = values.chunks_exact(32).zip(out[8..].chunks_exact_mut(16));
    for ((group, (values, bytes)), level) in groups.enumerate().zip(levels) {
        let inverse = reciprocal(d * level as f32);
        put_nibbles(|at| drawn(inverse * values[at], draw(group * 32 + at)), 16, bytes);
        let bits = (level + 32) as u16;
        low[group / 2] |= ((bits & 15) as u8) << (group % 2 * 4);
        high |= (bits >> 4) << (2 * group);
    }
    out[2..4].copy_from_slice(&high.to_le_bytes());
    out[4..8].copy_from_slice(&low);
}

/// The first of the numbers of four bits that is nearest; `step` is half of what E2M1 is multiplied with.
fn four_bits(value: f32, step: f32, draw: Option<f32>) -> u8 {
    if draw.is_some() {
        let scaled = if step == 0.0 { 0.0 } else { value / (2.0 * step) };
        return Nearest { even: true }.round(scaled, 1.0, draw).0;
    }
    let off = |code: usize| (TWICE[code] * step - value).abs();
    let nearer = |best: usize, code: usize| if off(code) < off(best) { code } else { best };
    (1..16).fold(0, nearer) as u8
}

/// MXFP4.
pub(super) fn mxfp4(values: &[f32], stored: Option<&[u8]>, draw: Draw<'_>, out: &mut [u8]) {
    out[0] = match stored {
        Some(block) => block[0],
        None => {
            let size = extreme(values).1;
            // A logarithm in f32 rounds up to a whole number just below a power of two.
            let exponent = || (f64::from(size).log2() as f32).floor() - 2.0 + 127.0;
            if size > 0.0 { exponent() as u8 } else { 0 }
        }
    };
    let step = mxfp4_step(out[0]);
    put_nibbles(|at| four_bits(values[at], step, draw(at)), 16, &mut out[1..]);
}

/// NVFP4.
pub(super) fn nvfp4(values: &[f32], stored: Option<&[u8]>, draw: Draw<'_>, out: &mut [u8]) {
    for (group, values) in values.chunks_exact(16).enumerate() {
        out[group] = match stored {
            Some(block) => block[group],
            None => unsigned_e4m3(extreme(values).1 / 6.0),
        };
        let step = nvfp4_step(out[group]);
        let bytes = &mut out[4 + group * 8..12 + group * 8];
        put_nibbles(|at| four_bits(values[at], step, draw(group * 16 + at)), 8, bytes);
    }
}

/// An E4M3 number without sign: halves go up, as ggml's `ggml_fp32_to_ue4m3` has it.
fn unsigned_e4m3(value: f32) -> u8 {
    let value = value.min(E4M3_MAX);
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 255).cast_signed() - 120;
    if exponent <= 0 {
        return ((value * 512.0 + 0.5) as u8).min(7);
    }
    // Four bits of exponent and three of mantissa, and what the next one rounds up.
    let code = (exponent << 3) + (bits >> 20 & 7).cast_signed() + (bits >> 19 & 1).cast_signed();
    if exponent >= 15 || code >= 120 { 0x7e } else { code as u8 }
}

/// −1, 0, 1 as 0, 1, 2, in the largest magnitude.
fn three(values: &[f32], stored: Option<f32>, draw: Draw<'_>) -> ([u8; 256], f32) {
    let step = stored.unwrap_or_else(|| extreme(values).1);
    let inverse = reciprocal(step);
    let mut codes = [0; 256];
    for (at, (slot, value)) in codes.iter_mut().zip(values).enumerate() {
        let scaled = value * inverse;
        let whole = match draw(at) {
            None => scaled.round(),
            draw => whole(scaled, draw),
        };
        *slot = (whole.clamp(-1.0, 1.0) + 1.0) as u8;
    }
    (codes, step)
}

/// TQ1_0.
pub(super) fn tq1_0(values: &[f32], stored: Option<&[u8]>, draw: Draw<'_>, out: &mut [u8]) {
    let (codes, step) = three(values, stored.map(|block| half(block, 52)), draw);
    out[52..54].copy_from_slice(&f16::from_f32(step).to_le_bytes());
    // (first byte, bytes, first element, digits): a digit's elements lie as far apart as there are bytes.
    for (first, bytes, start, digits) in [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)] {
        for at in 0..bytes {
            let digit = |number: usize| match number < digits {
                true => u16::from(codes[start + number * bytes + at]),
                false => 0,
            };
            let whole = (0..5).fold(0, |whole, number| whole * 3 + digit(number));
            // As a fraction of 256, rounded up.
            out[first + at] = (whole * 256).div_ceil(243) as u8;
        }
    }
}

/// TQ2_0.
pub(super) fn tq2_0(values: &[f32], stored: Option<&[u8]>, draw: Draw<'_>, out: &mut [u8]) {
    let (codes, step) = three(values, stored.map(|block| half(block, 64)), draw);
    out[64..66].copy_from_slice(&f16::from_f32(step).to_le_bytes());
    for (lines, bytes) in codes.chunks_exact(128).zip(out.chunks_exact_mut(32)) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = (0..4).fold(0, |bits, line| bits | lines[32 * line + at] << (2 * line));
        }
    }
}
