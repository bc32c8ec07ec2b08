//! Numbers of eight and four bits (OCP "8-bit Floating Point Specification" 1.0, "Microscaling Formats" 1.0):
//! E4M3 without infinities, E5M2, E8M0 (powers of two), E2M1.
//!
//! Every value is exact in f32. Widening has no branches, so that loops over bytes become vectors.

/// The largest E4M3 number.
pub const E4M3_MAX: f32 = 448.0;

/// The largest E5M2 number.
pub const E5M2_MAX: f32 = 57344.0;

/// The largest E2M1 number.
pub const E2M1_MAX: f32 = 6.0;

/// E2M1 by code: three bits of magnitude, then the sign.
pub const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The number of a code with so many bits of mantissa and this bias. On the way there is no subnormal f32, on which
/// processors spend a hundred times as long: a code's subnormal is the normal number with its mantissa and the least
/// exponent, less the least normal number.
#[inline(always)]
fn widened(code: u8, mantissa: u32, bias: u32) -> f32 {
    let size = u32::from(code & 0x7f);
    let (lift, least) = match size >> mantissa {
        0 => (1 << mantissa, f32::from_bits((128 - bias) << 23)),
        _ => (0, 0.0),
    };
    let lifted = f32::from_bits(((size + lift) << (23 - mantissa)) + ((127 - bias) << 23));
    f32::from_bits((lifted - least).to_bits() | u32::from(code & 0x80) << 24)
}

/// An E4M3 number. Of the two NaN codes the result is ±480: see [`is_e4m3_nan`].
#[inline(always)]
pub fn e4m3(code: u8) -> f32 {
    widened(code, 3, 7)
}

/// Whether an E4M3 code is one of the two that are no number.
#[inline(always)]
pub fn is_e4m3_nan(code: u8) -> bool {
    code & 0x7f == 0x7f
}

/// An E5M2 number. Infinities and NaN become finite: see [`is_e5m2_special`].
#[inline(always)]
pub fn e5m2(code: u8) -> f32 {
    widened(code, 2, 15)
}

/// Whether an E5M2 code is infinite or no number.
#[inline(always)]
pub fn is_e5m2_special(code: u8) -> bool {
    code & 0x7c == 0x7c
}

/// 2^(code − 127); 0 is the subnormal 2⁻¹²⁷, 255 is NaN.
#[inline(always)]
pub fn e8m0(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(code) << 23),
    }
}

/// The nearest E4M3 code, ties to even; beyond ±448 the largest (a cast without the clamp gives NaN).
/// NaN stays NaN.
#[inline(always)]
pub fn to_e4m3(value: f32) -> u8 {
    let size = value.abs();
    let size = if size > E4M3_MAX { E4M3_MAX } else { size };
    let bits = size.to_bits();
    let normal =
        (bits.wrapping_add(0x7_ffff + (bits >> 20 & 1)) >> 20).wrapping_sub((127 - 7) << 3);
    // Below the least normal number, steps of 2⁻⁹, which are those of 2¹⁴ and what follows it.
    let small = (size + 16384.0).to_bits();
    signed(value, if size < 0.015_625 { small } else { normal })
}

/// The nearest E5M2 code, ties to even; beyond ±57344 the largest. NaN stays NaN.
#[inline(always)]
pub fn to_e5m2(value: f32) -> u8 {
    let size = value.abs();
    let size = if size > E5M2_MAX { E5M2_MAX } else { size };
    let bits = size.to_bits();
    let normal =
        (bits.wrapping_add(0xf_ffff + (bits >> 21 & 1)) >> 21).wrapping_sub((127 - 15) << 2);
    // Below the least normal number, 2⁻¹⁴, steps of 2⁻¹⁶, which are those of 2⁷.
    let small = (size + 128.0).to_bits();
    signed(value, if size < 6.103_515_6e-5 { small } else { normal })
}

/// Seven bits of a code with the sign of a number; those of NaN, if it is none.
#[inline(always)]
fn signed(value: f32, code: u32) -> u8 {
    let code = if value.is_nan() { 0x7f } else { code & 0x7f };
    (code | value.to_bits() >> 24 & 0x80) as u8
}

/// Half way between one E2M1 magnitude and the next, and how far apart they are.
const E2M1_TIES: [(f32, f32); 7] =
    [(0.25, 0.5), (0.75, 0.5), (1.25, 0.5), (1.75, 0.5), (2.5, 1.0), (3.5, 1.0), (5.0, 2.0)];

/// The nearest E2M1 magnitude, three bits without the sign, and its number; beyond 6 the largest. A tie goes to the
/// even code, or to the lower one.
#[inline(always)]
pub fn to_e2m1(size: f32, even: bool) -> (u8, f32) {
    let (mut code, mut number) = (0u32, 0.0);
    let mut step = |is_odd: bool, (tie, more): (f32, f32)| {
        let above = if even && is_odd { size >= tie } else { size > tie };
        code += u32::from(above);
        number += if above { more } else { 0.0 };
    };
    // One after the other: each knows when it is compiled whether its code is odd.
    let [a, b, c, d, e, f, g] = E2M1_TIES;
    step(false, a);
    step(true, b);
    step(false, c);
    step(true, d);
    step(false, e);
    step(true, f);
    step(false, g);
    (code as u8, number)
}

/// ⌊log2⌋ of a positive number, exact.
pub fn exponent(value: f32) -> i32 {
    let bits = (value.to_bits() & 0x7fff_ffff).cast_signed();
    match bits >> 23 {
        0 => 31 - bits.leading_zeros().cast_signed() - 149,
        biased => biased - 127,
    }
}

/// The E8M0 code of 2^`exponent`, within its range.
pub fn to_e8m0(exponent: i32) -> u8 {
    (exponent + 127).clamp(0, 254) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code taken apart in f64, as the specification writes it.
    fn by_fields(code: u8, mantissa: i32, bias: i32) -> f64 {
        let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
        let exponent = i32::from(code & 0x7f) >> mantissa;
        let fraction = f64::from(i32::from(code & 0x7f) & ((1 << mantissa) - 1));
        let unit = 2f64.powi(-mantissa);
        sign * match exponent {
            0 => fraction * unit * 2f64.powi(1 - bias),
            _ => (1.0 + fraction * unit) * 2f64.powi(exponent - bias),
        }
    }

    #[test]
    fn every_code_widens_to_its_number() {
        for code in 0..=255u8 {
            if !is_e4m3_nan(code) {
                assert_eq!(f64::from(e4m3(code)), by_fields(code, 3, 7), "E4M3 {code}");
            }
            if !is_e5m2_special(code) {
                assert_eq!(f64::from(e5m2(code)), by_fields(code, 2, 15), "E5M2 {code}");
            }
            if code < 255 {
                assert_eq!(f64::from(e8m0(code)), 2f64.powi(i32::from(code) - 127), "E8M0 {code}");
            }
        }
        assert!(e8m0(255).is_nan());
        assert_eq!(e4m3(0x7e), E4M3_MAX);
        assert_eq!(e4m3(1), 2f32.powi(-9));
    }

    #[test]
    fn narrowing_to_two_bits_of_mantissa_is_nearest_even_and_clamps() {
        for code in (0..=255u8).filter(|code| !is_e5m2_special(*code)) {
            assert_eq!(to_e5m2(e5m2(code)), code);
        }
        for low in 0..0x7bu8 {
            let middle = f32::midpoint(e5m2(low), e5m2(low + 1));
            assert_eq!(to_e5m2(middle), low + (low & 1), "tie above {}", e5m2(low));
            assert_eq!(to_e5m2(middle.next_down()), low);
            assert_eq!(to_e5m2(middle.next_up()), low + 1);
        }
        assert_eq!(to_e5m2(-1e9), 0xfb);
    }

    #[test]
    fn four_bits_round_to_the_nearest() {
        let sizes = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 0.2, 0.3, 5.1, 900.0];
        assert_eq!(sizes.map(|size| to_e2m1(size, true).0), [0, 2, 2, 4, 4, 6, 6, 0, 1, 7, 7]);
        assert_eq!(sizes.map(|size| to_e2m1(size, false).0), [0, 1, 2, 3, 4, 5, 6, 0, 1, 7, 7]);
    }

    #[test]
    fn exponents_are_those_of_the_number() {
        for (value, expected) in
            [(1.0, 0), (1.99, 0), (2.0, 1), (0.124_999_99, -4), (1e-45, -149), (3e38, 127)]
        {
            assert_eq!(exponent(value), expected, "{value}");
        }
        assert_eq!(e8m0(to_e8m0(-9)), 2f32.powi(-9));
    }

    #[test]
    fn narrowing_is_nearest_even_and_clamps() {
        for code in (0..=255u8).filter(|code| !is_e4m3_nan(*code)) {
            assert_eq!(to_e4m3(e4m3(code)), code);
        }
        for low in 0..0x7eu8 {
            let (below, above) = (e4m3(low), e4m3(low + 1));
            let middle = f32::midpoint(below, above);
            assert_eq!(to_e4m3(middle), low + (low & 1), "tie above {below}");
            assert_eq!(to_e4m3(middle.next_down()), low);
            assert_eq!(to_e4m3(middle.next_up()), low + 1);
        }
        assert_eq!(to_e4m3(470.0), 0x7e);
        assert_eq!(to_e4m3(-1e9), 0xfe);
    }
}
