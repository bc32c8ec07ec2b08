//! Codes that are looked up: IQ4's table, and numbers of four bits (MXFP4, NVFP4).

use super::half;
use super::simple::nibbles;
use crate::math::kernel::small_float::e4m3;

/// ggml's `kvalues_iq4nl`.
pub(super) const IQ4: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

/// Twice the numbers of E2M1, which ggml has as whole numbers: code 8 is 0, not −0.
pub(super) const TWICE: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// `d · table[q]`.
#[inline(always)]
pub(super) fn iq4_nl(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    nibbles(&block[2..18], out, |_, q| d * IQ4[usize::from(q)]);
}

/// `(d · (scale − 32)) · table[q]`, a scale of six bits for every 32.
#[inline(always)]
pub(super) fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
        let scale = u16::from(low) | (high >> (group * 2) & 3) << 4;
        let scale = d * (f32::from(scale) - 32.0);
        nibbles(&block[8 + group * 16..24 + group * 16], values, |_, q| {
            scale * IQ4[usize::from(q)]
        });
    }
}

/// Half of 2^(e − 127).
#[inline(always)]
pub(super) fn mxfp4_step(exponent: u8) -> f32 {
    // For e below 2 it is no f32 of its own bits, but subnormal.
    match exponent {
        e @ 0..2 => f32::from_bits(0x0020_0000 << e),
        e => f32::from_bits(u32::from(e - 1) << 23),
    }
}

/// 2^(e − 128) · twice the number.
#[inline(always)]
pub(super) fn mxfp4(block: &[u8], out: &mut [f32]) {
    let scale = mxfp4_step(block[0]);
    nibbles(&block[1..17], out, |_, q| scale * TWICE[usize::from(q)]);
}

/// Half of an E4M3 number without sign.
#[inline(always)]
pub(super) fn nvfp4_step(code: u8) -> f32 {
    match code {
        0 | 0x7f => 0.0,
        code => e4m3(code & 0x7f) * 0.5,
    }
}

/// Four groups of 16: an E4M3 scale without sign, halved, times twice the number.
#[inline(always)]
pub(super) fn nvfp4(block: &[u8], out: &mut [f32]) {
    for (group, values) in out.chunks_exact_mut(16).enumerate() {
        let scale = nvfp4_step(block[group]);
        let first = 4 + group * 8;
        nibbles(&block[first..first + 8], values, |_, q| scale * TWICE[usize::from(q)]);
    }
}
