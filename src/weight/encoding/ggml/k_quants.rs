//! K-quants: blocks of 256, whose groups of 16 or 32 have scales of 4, 6 or 8 bits themselves.

use super::half;

/// (d · scale) · q − (dmin · least).
#[inline(always)]
pub(super) fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (d, least) = (half(block, 80), half(block, 82));
    for (group, values) in out.chunks_exact_mut(16).enumerate() {
        let (scale, minimum) =
            (d * f32::from(scales[group] & 15), least * f32::from(scales[group] >> 4));
        // 128 elements share 32 bytes, 32 of them a pair of bits.
        let (first, shift) = (group / 8 * 32 + group % 2 * 16, group / 2 % 4 * 2);
        for (byte, value) in codes[first..first + 16].iter().zip(values) {
            *value = scale * f32::from(byte >> shift & 3) - minimum;
        }
    }
}

/// (d · scale) · q, q of two bits, less 4 where the third is not set.
#[inline(always)]
pub(super) fn q3_k(block: &[u8], out: &mut [f32]) {
    let (high, codes, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half(block, 108);
    for (group, values) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * three_bit_scale(scales, group);
        let (within, shift) = (group % 2 * 16, group / 2 % 4 * 2);
        let first = group / 8 * 32 + within;
        let bytes = codes[first..first + 16].iter().zip(&high[within..within + 16]);
        for ((byte, high), value) in bytes.zip(values) {
            let missing = 4 * (1 - (high >> (group / 2) & 1));
            *value = scale * (f32::from(byte >> shift & 3) - f32::from(missing));
        }
    }
}

/// The scale of one of Q3_K's sixteen groups, six bits in twelve bytes.
#[inline(always)]
pub(super) fn three_bit_scale(scales: &[u8], group: usize) -> f32 {
    let low = scales[group % 8] >> (group / 8 * 4) & 15;
    let upper = scales[8 + group % 4] >> (group / 4 * 2) & 3;
    f32::from(low | upper << 4) - 32.0
}

/// Scale and least value of one of eight groups, six bits each in twelve bytes.
#[inline(always)]
pub(super) fn six_bits(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, least) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        (
            packed[group + 4] & 15 | packed[group - 4] >> 6 << 4,
            packed[group + 4] >> 4 | packed[group] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(least))
}

/// (d · scale) · q − (dmin · least).
#[inline(always)]
pub(super) fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, least) = (half(block, 0), half(block, 2));
    let (packed, codes) = (&block[4..16], &block[16..144]);
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = six_bits(packed, group);
        let (scale, minimum) = (d * scale, least * minimum);
        let (first, shift) = (group / 2 * 32, group % 2 * 4);
        for (byte, value) in codes[first..first + 32].iter().zip(values) {
            *value = scale * f32::from(byte >> shift & 15) - minimum;
        }
    }
}

/// As [`q4_k`], with a fifth bit.
#[inline(always)]
pub(super) fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, least) = (half(block, 0), half(block, 2));
    let (packed, high, codes) = (&block[4..16], &block[16..48], &block[48..176]);
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = six_bits(packed, group);
        let (scale, minimum) = (d * scale, least * minimum);
        let (first, shift) = (group / 2 * 32, group % 2 * 4);
        for ((byte, high), value) in codes[first..first + 32].iter().zip(high).zip(values) {
            let code = byte >> shift & 15 | (high >> group & 1) << 4;
            *value = scale * f32::from(code) - minimum;
        }
    }
}

/// (d · scale) · (q − 32), q of six bits.
#[inline(always)]
pub(super) fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half(block, 208);
    for (line, values) in out.chunks_exact_mut(32).enumerate() {
        // Each half of 128 has 64 bytes of nibbles and 32 of pairs of bits.
        let (part, at) = (line / 4, line % 4);
        let first = part * 64 + at % 2 * 32;
        let bytes = low[first..first + 32].iter().zip(&high[part * 32..part * 32 + 32]);
        for (number, ((byte, high), value)) in bytes.zip(values).enumerate() {
            let code = byte >> (at / 2 * 4) & 15 | (high >> (at * 2) & 3) << 4;
            let scale = d * f32::from(scales[line * 2 + number / 16].cast_signed());
            *value = scale * (f32::from(code) - 32.0);
        }
    }
}
