//! Codes of one byte and their numbers.

use std::marker::PhantomData;

use crate::error::{QuantError, Result};
use crate::format::Dtype;
use crate::math::kernel::loops::{Loop, widest};
use crate::math::kernel::small_float::{
    E4M3_MAX, E5M2_MAX, e4m3, e5m2, is_e4m3_nan, is_e5m2_special, to_e4m3, to_e5m2,
};

use super::groups::{Round, round};
use super::{Panel, Stored, rounding};

/// What a byte stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    E4m3,
    E5m2,
    Int8,
}

/// What bytes are multiplied with when they are read, and values (or what these are divided by) before they are rounded.
pub(super) type Step = (f32, f32);

/// What values are divided by, or multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Quotient,
    Product,
}

impl Code {
    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F8_E4M3 => Self::E4m3,
            Dtype::F8_E5M2 => Self::E5m2,
            Dtype::I8 => Self::Int8,
            _ => return None,
        })
    }

    /// The largest number it stands for.
    pub(super) fn largest(self) -> f32 {
        match self {
            Self::E4m3 => E4M3_MAX,
            Self::E5m2 => E5M2_MAX,
            Self::Int8 => 127.0,
        }
    }

    /// The codes of a panel's values by the steps of their groups, and the numbers that they are read as. A step of 0
    /// has the code of 0.
    pub(super) fn round(
        self,
        by: By,
        panel: &Panel<'_>,
        size: (usize, usize),
        steps: &[Step],
        read: &mut Vec<f32>,
    ) -> Vec<u8> {
        fn with<B: Byte>(
            by: By,
            panel: &Panel<'_>,
            size: (usize, usize),
            steps: &[Step],
            read: &mut Vec<f32>,
        ) -> Vec<u8> {
            match by {
                By::Quotient => round(Scaled::<B, true>(PhantomData), panel, size, steps, read),
                By::Product => round(Scaled::<B, false>(PhantomData), panel, size, steps, read),
            }
        }
        match self {
            Self::E4m3 => with::<E4m3>(by, panel, size, steps, read),
            Self::E5m2 => with::<E5m2>(by, panel, size, steps, read),
            Self::Int8 => with::<Int8>(by, panel, size, steps, read),
        }
    }

    /// Widens elements `first..` of a tensor; infinities and NaN are refused.
    pub(super) fn widen(self, stored: &Stored, first: usize, out: &mut [f32]) -> Result<()> {
        let mut scratch = Vec::new();
        let bytes = stored.bytes(first..first + out.len(), &mut scratch)?;
        let (found, special): (bool, fn(u8) -> bool) = match self {
            Self::E4m3 => (widest(Widened::<E4m3>(bytes, out, PhantomData)), E4m3::is_special),
            Self::E5m2 => (widest(Widened::<E5m2>(bytes, out, PhantomData)), E5m2::is_special),
            Self::Int8 => (widest(Widened::<Int8>(bytes, out, PhantomData)), Int8::is_special),
        };
        let at = if found { bytes.iter().position(|byte| special(*byte)) } else { None };
        match at {
            None => Ok(()),
            Some(at) => {
                let value = "not a finite number";
                Err(stored.error(QuantError::CodeNotFinite { index: first + at, value }))
            }
        }
    }
}

/// A kind of byte, known when a loop is compiled.
trait Byte: Copy {
    fn number(code: u8) -> f32;
    /// Whether it stands for no finite number.
    fn is_special(code: u8) -> bool;
    /// The code of the nearest number, ties to even, within its range; of the two about it the one that a draw
    /// from [0, 1) decides on, if there is a draw.
    fn narrow(value: f32, draw: Option<f32>) -> u8;
}

#[derive(Debug, Clone, Copy)]
struct E4m3;
#[derive(Debug, Clone, Copy)]
struct E5m2;
#[derive(Debug, Clone, Copy)]
struct Int8;

impl Byte for E4m3 {
    #[inline(always)]
    fn number(code: u8) -> f32 {
        e4m3(code)
    }

    #[inline(always)]
    fn is_special(code: u8) -> bool {
        is_e4m3_nan(code)
    }

    #[inline(always)]
    fn narrow(value: f32, draw: Option<f32>) -> u8 {
        drawn::<Self>(to_e4m3(value), value.abs().min(E4M3_MAX), draw)
    }
}

impl Byte for E5m2 {
    #[inline(always)]
    fn number(code: u8) -> f32 {
        e5m2(code)
    }

    #[inline(always)]
    fn is_special(code: u8) -> bool {
        is_e5m2_special(code)
    }

    #[inline(always)]
    fn narrow(value: f32, draw: Option<f32>) -> u8 {
        drawn::<Self>(to_e5m2(value), value.abs().min(E5M2_MAX), draw)
    }
}

impl Byte for Int8 {
    #[inline(always)]
    fn number(code: u8) -> f32 {
        f32::from(code.cast_signed())
    }

    #[inline(always)]
    fn is_special(_: u8) -> bool {
        false
    }

    #[inline(always)]
    fn narrow(value: f32, draw: Option<f32>) -> u8 {
        rounding::low_byte(rounding::whole(value, draw).clamp(-128.0, 127.0))
    }
}

/// Of the floats about a magnitude, the nearest of which is known, the code of the one that a draw decides on.
#[inline(always)]
fn drawn<B: Byte>(nearest: u8, size: f32, draw: Option<f32>) -> u8 {
    let Some(draw) = draw else { return nearest };
    let (sign, at) = (nearest & 0x80, nearest & 0x7f);
    let low = if B::number(at) > size { at - 1 } else { at };
    let (below, above) = (B::number(low), B::number(low + 1));
    sign | if rounding::upper(below, above, size, draw) { low + 1 } else { low }
}

/// Bytes that are multiplied with a step.
#[derive(Debug, Clone, Copy)]
struct Scaled<B, const DIVIDES: bool>(PhantomData<B>);

impl<B: Byte, const DIVIDES: bool> Round for Scaled<B, DIVIDES> {
    type Step = Step;

    #[inline(always)]
    fn round(self, value: f32, (scale, factor): Step, draw: Option<f32>) -> (u8, f32) {
        let scaled = if DIVIDES { value / factor } else { value * factor };
        let code = B::narrow(if scale == 0.0 { 0.0 } else { scaled }, draw);
        (code, B::number(code) * scale)
    }
}

/// Whether one of the codes that were widened is special.
struct Widened<'a, B>(&'a [u8], &'a mut [f32], PhantomData<B>);

impl<B: Byte> Loop for Widened<'_, B> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        for (byte, slot) in self.0.iter().zip(self.1) {
            *slot = B::number(*byte);
        }
        let special = |any: u8, byte: &u8| any | u8::from(B::is_special(*byte));
        self.0.iter().fold(0, special) != 0
    }
}
