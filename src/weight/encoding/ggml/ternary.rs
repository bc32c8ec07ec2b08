//! TQ1_0 and TQ2_0: −1, 0, 1 times one scale of 256 elements.

use super::half;

/// What brings each digit to the top.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// Five digits of base 3 a byte, as a fraction of 256: multiplying by 3 brings the next one to the top.
#[inline(always)]
pub(super) fn tq1_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 52);
    let digit = |byte: u8, power: u8| {
        let rest = byte.wrapping_mul(power);
        d * (f32::from(((u16::from(rest) * 3) >> 8) as u8) - 1.0)
    };
    let mut slots = out.iter_mut();
    for (bytes, digits) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
        for power in POWERS.into_iter().take(digits) {
            for (byte, slot) in bytes.iter().zip(slots.by_ref()) {
                *slot = digit(*byte, power);
            }
        }
    }
}

/// Two bits an element: 128 elements share 32 bytes.
#[inline(always)]
pub(super) fn tq2_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 64);
    for (line, values) in out.chunks_exact_mut(32).enumerate() {
        let (first, shift) = (line / 4 * 32, line % 4 * 2);
        for (byte, value) in block[first..first + 32].iter().zip(values) {
            *value = d * (f32::from(byte >> shift & 3) - 1.0);
        }
    }
}
