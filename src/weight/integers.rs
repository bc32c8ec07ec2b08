//! compressed-tensors' whole numbers (`quantization/utils/helpers.py`, calculate_qparams): scales, zero points and codes
//! of b bits, between −2^(b−1) and 2^(b−1) − 1.

use super::groups::Round;
use super::rounding::{low_byte, whole};

/// The least scale: f32's distance from 1 to the next number.
const LEAST: f32 = f32::EPSILON;

/// Codes of some bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Integers {
    /// Bits of a code, at most 8.
    pub(super) bits: usize,
}

impl Integers {
    pub(super) fn bottom(self) -> f32 {
        -((1i32 << (self.bits - 1)) as f32)
    }

    fn top(self) -> f32 {
        ((1i32 << (self.bits - 1)) - 1) as f32
    }

    /// Steps from the least code to the largest.
    fn steps(self) -> f32 {
        ((1i32 << self.bits) - 1) as f32
    }

    /// The scale of values as large as this, without a zero point.
    pub(super) fn symmetric(self, largest: f32) -> f32 {
        (largest / (self.steps() / 2.0)).max(LEAST)
    }

    /// Scale and zero point of values from `low` to `high`, 0 among them.
    pub(super) fn affine(self, low: f32, high: f32) -> (f32, f32) {
        let scale = ((high - low) / self.steps()).max(LEAST);
        let zero = (self.bottom() - low / scale).clamp(self.bottom(), self.top());
        (scale, zero.round_ties_even())
    }

    /// What rounds values to codes that are stored as `offset` more.
    pub(super) fn rule(self, offset: f32) -> Whole {
        Whole { bottom: self.bottom(), top: self.top(), offset }
    }
}

/// Whole numbers between two, stored as so much more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole {
    bottom: f32,
    top: f32,
    offset: f32,
}

impl Whole {
    #[inline(always)]
    fn code(self, value: f32, (scale, zero): (f32, f32), draw: Option<f32>) -> f32 {
        let code = whole((value / scale + zero).clamp(self.bottom, self.top), draw);
        if scale == 0.0 { zero } else { code }
    }
}

impl Round for Whole {
    /// Scale and zero point.
    type Step = (f32, f32);

    #[inline(always)]
    fn round(self, value: f32, (scale, zero): Self::Step, draw: Option<f32>) -> (u8, f32) {
        let code = self.code(value, (scale, zero), draw);
        (low_byte(code + self.offset), (code - zero) * scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_bits() {
        let four = Integers { bits: 4 };
        assert_eq!((four.symmetric(15.0), four.symmetric(0.0)), (2.0, f32::EPSILON));
        assert_eq!(four.affine(-1.0, 14.0), (1.0, -7.0));
        let rule = four.rule(8.0);
        assert_eq!(rule.round(100.0, (1.0, -7.0), None), (15, 14.0));
        assert_eq!(rule.round(-1.0, (1.0, -7.0), None), (0, -1.0));
        assert_eq!(rule.round(9.0, (0.0, 2.0), None), (10, 0.0));
        assert_eq!(Integers { bits: 8 }.rule(0.0).round(0.5, (1.0, 0.0), None), (0, 0.0));
        assert_eq!(Integers { bits: 8 }.rule(0.0).round(-0.6, (1.0, 0.0), None), (255, -1.0));
    }
}
