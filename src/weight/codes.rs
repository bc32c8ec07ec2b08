//! Codes of one byte and their numbers.

use crate::error::{QuantError, Result};
use crate::format::Dtype;
use crate::math::kernel::small_float::{e4m3, e5m2, is_e4m3_nan, is_e5m2_special};

use super::Stored;

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
