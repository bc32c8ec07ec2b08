//! Codes of one byte and their numbers.

use crate::error::{QuantError, Result};
use crate::format::Dtype;
use crate::math::kernel::small_float::{
    E4M3_MAX, E5M2_MAX, e4m3, e5m2, is_e4m3_nan, is_e5m2_special, to_e4m3, to_e5m2,
};

use super::{Stored, rounding};

/// What a byte stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    E4m3,
    E5m2,
    Int8,
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

    /// The number of a code.
    pub(super) fn number(self, code: u8) -> f32 {
        match self {
            Self::E4m3 => e4m3(code),
            Self::E5m2 => e5m2(code),
            Self::Int8 => f32::from(code.cast_signed()),
        }
    }

    /// The code of the nearest number, ties to even, within its range; of the two about it the one that a draw
    /// from [0, 1) decides on, if there is a draw.
    pub(super) fn narrow(self, value: f32, draw: Option<f32>) -> u8 {
        let nearest = match self {
            Self::E4m3 => to_e4m3(value),
            Self::E5m2 => to_e5m2(value),
            Self::Int8 => {
                return (rounding::whole(value, draw).clamp(-128.0, 127.0) as i8).cast_unsigned();
            }
        };
        let Some(draw) = draw else { return nearest };
        let (sign, size) = (nearest & 0x80, value.abs().min(self.largest()));
        let at = nearest & 0x7f;
        let low = if self.number(at) > size { at - 1 } else { at };
        let (below, above) = (self.number(low), self.number(low + 1));
        sign | if rounding::upper(below, above, size, draw) { low + 1 } else { low }
    }

    /// Widens elements `first..` of a tensor; infinities and NaN are refused.
    pub(super) fn widen(self, stored: &Stored, first: usize, out: &mut [f32]) -> Result<()> {
        let mut scratch = Vec::new();
        let bytes = stored.bytes(first..first + out.len(), &mut scratch)?;
        let pairs = out.iter_mut().zip(bytes);
        let special: fn(u8) -> bool = match self {
            Self::E4m3 => {
                pairs.for_each(|(slot, byte)| *slot = e4m3(*byte));
                is_e4m3_nan
            }
            Self::E5m2 => {
                pairs.for_each(|(slot, byte)| *slot = e5m2(*byte));
                is_e5m2_special
            }
            Self::Int8 => {
                pairs.for_each(|(slot, byte)| *slot = f32::from(byte.cast_signed()));
                return Ok(());
            }
        };
        let found = match self {
            Self::E4m3 => bytes.iter().fold(false, |any, byte| any | is_e4m3_nan(*byte)),
            _ => bytes.iter().fold(false, |any, byte| any | is_e5m2_special(*byte)),
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
