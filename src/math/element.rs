//! Number types that weights are stored in, and their conversion to and from the working type.
//!
//! Narrowing rounds once, to nearest, ties to even. Bytes may be unaligned: a safetensors header of
//! odd length shifts everything after it.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Elements converted at a time by the merge kernel.
pub const BLOCK: usize = 64;

/// A stored floating-point type, chosen at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// bfloat16: f32's range, 8 bits of precision.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl ElementType {
    /// Bytes in one element.
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Widens all of `bytes` into `out`; one element for each.
    ///
    /// # Panics
    /// If the lengths disagree.
    #[track_caller]
    pub fn decode(self, bytes: &[u8], out: &mut [f64]) {
        assert_eq!(bytes.len(), out.len() * self.size(), "bytes and elements differ");
        match self {
            Self::Bf16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f64()),
            Self::F16 => each(bytes, out, |b| f16::from_le_bytes(b).to_f64()),
            Self::F32 => each(bytes, out, |b| f64::from(f32::from_le_bytes(b))),
            Self::F64 => each(bytes, out, f64::from_le_bytes),
        }
    }

    /// Widens (f64: narrows) all of `bytes` to f32.
    ///
    /// # Panics
    /// If the lengths disagree.
    #[track_caller]
    pub fn decode_f32(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(bytes.len(), out.len() * self.size(), "bytes and elements differ");
        match self {
            Self::Bf16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F16 => each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Self::F32 => each(bytes, out, f32::from_le_bytes),
            Self::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        }
    }

    /// Narrows `values` into `bytes`, rounding once, to nearest even.
    ///
    /// # Panics
    /// If the lengths disagree.
    #[track_caller]
    pub fn encode(self, values: &[f64], bytes: &mut [u8]) {
        assert_eq!(bytes.len(), values.len() * self.size(), "bytes and elements differ");
        match self {
            Self::Bf16 => put(values, bytes, |v| bf16::from_f32(to_odd(v)).to_le_bytes()),
            Self::F16 => put(values, bytes, |v| f16::from_f32(to_odd(v)).to_le_bytes()),
            Self::F32 => put(values, bytes, |v| (v as f32).to_le_bytes()),
            Self::F64 => put(values, bytes, f64::to_le_bytes),
        }
    }

    /// Distance from `value` to the next representable one above its magnitude.
    pub fn ulp(self, value: f64) -> f64 {
        let (digits, least) = match self {
            Self::Bf16 => (7, -133),
            Self::F16 => (10, -24),
            Self::F32 => (23, -149),
            Self::F64 => (52, -1074),
        };
        let exponent = if value == 0.0 { least } else { value.abs().log2().floor() as i32 };
        2f64.powi((exponent - digits).max(least))
    }
}

fn each<const N: usize, T>(bytes: &[u8], out: &mut [T], read: impl Fn([u8; N]) -> T) {
    for (chunk, slot) in bytes.as_chunks::<N>().0.iter().zip(out) {
        *slot = read(*chunk);
    }
}

fn put<const N: usize>(values: &[f64], bytes: &mut [u8], write: impl Fn(f64) -> [u8; N]) {
    for (&value, chunk) in values.iter().zip(bytes.as_chunks_mut::<N>().0) {
        *chunk = write(value);
    }
}

/// f64 → f32, rounding to odd: a following rounding to fewer bits is then as good as a single one
/// (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums").
fn to_odd(value: f64) -> f32 {
    let near = value as f32;
    let back = f64::from(near);
    #[allow(clippy::float_cmp, reason = "whether the conversion was exact")]
    if back == value || !near.is_finite() || near.to_bits() & 1 == 1 {
        return near;
    }
    // `near` is even, so its neighbour on the other side of `value` is odd.
    if back < value { near.next_up() } else { near.next_down() }
}

/// A stored type as the kernel sees it, fixed at compile time: up to [`BLOCK`] elements at a time.
pub trait Element: Copy {
    /// Bytes in one element.
    const SIZE: usize;

    /// Widens what is in `bytes`; zeros after it.
    fn load(bytes: &[u8]) -> [f32; BLOCK];

    /// Narrows the front of `values` into `bytes`; returns what the stored codes stand for.
    fn store(values: &[f32; BLOCK], bytes: &mut [u8]) -> [f32; BLOCK];
}

/// Copies up to a block of stored elements. A whole block has its length known at compile time: the
/// copy, and the loops over the local array, then become a few vector instructions.
#[inline(always)]
fn take<const N: usize>(bytes: &[u8]) -> [[u8; N]; BLOCK] {
    let chunks = bytes.as_chunks::<N>().0;
    match chunks.first_chunk::<BLOCK>() {
        Some(whole) => *whole,
        None => {
            let mut block = [[0; N]; BLOCK];
            block[..chunks.len()].copy_from_slice(chunks);
            block
        }
    }
}

/// Stores the front of a block, as much as `bytes` has room for.
#[inline(always)]
fn give<const N: usize>(block: &[[u8; N]; BLOCK], bytes: &mut [u8]) {
    let chunks = bytes.as_chunks_mut::<N>().0;
    match chunks.first_chunk_mut::<BLOCK>() {
        Some(whole) => *whole = *block,
        None => chunks.copy_from_slice(&block[..chunks.len()]),
    }
}

impl Element for f32 {
    const SIZE: usize = 4;

    #[inline(always)]
    fn load(bytes: &[u8]) -> [f32; BLOCK] {
        take(bytes).map(Self::from_le_bytes)
    }

    #[inline(always)]
    fn store(values: &[f32; BLOCK], bytes: &mut [u8]) -> [f32; BLOCK] {
        give(&values.map(Self::to_le_bytes), bytes);
        *values
    }
}

impl Element for bf16 {
    const SIZE: usize = 2;

    #[inline(always)]
    fn load(bytes: &[u8]) -> [f32; BLOCK] {
        take(bytes).map(|code| f32::from_bits(u32::from(u16::from_le_bytes(code)) << 16))
    }

    // `half` converts slices of bf16 one by one; these loops become vector instructions. A NaN may
    // lose its payload here: the caller checks the values themselves.
    #[inline(always)]
    fn store(values: &[f32; BLOCK], bytes: &mut [u8]) -> [f32; BLOCK] {
        let codes = values.map(|value| {
            let bits = value.to_bits();
            bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16
        });
        give(&codes.map(|code| (code as u16).to_le_bytes()), bytes);
        codes.map(|code| f32::from_bits(code << 16))
    }
}

impl Element for f16 {
    const SIZE: usize = 2;

    #[inline(always)]
    fn load(bytes: &[u8]) -> [f32; BLOCK] {
        let mut out = [0.0; BLOCK];
        take(bytes).map(Self::from_le_bytes).convert_to_f32_slice(&mut out);
        out
    }

    #[inline(always)]
    fn store(values: &[f32; BLOCK], bytes: &mut [u8]) -> [f32; BLOCK] {
        let mut codes = [Self::ZERO; BLOCK];
        codes.convert_from_f32_slice(values);
        give(&codes.map(Self::to_le_bytes), bytes);
        let mut rounded = [0.0; BLOCK];
        codes.convert_to_f32_slice(&mut rounded);
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nearest bf16 by search over its neighbours, in f64, ties to even.
    fn nearest(value: f64, of: impl Fn(u16) -> f64) -> u16 {
        (0..=u16::MAX)
            .filter(|&code| of(code).is_finite())
            .min_by(|&a, &b| {
                let (da, db) = ((of(a) - value).abs(), (of(b) - value).abs());
                da.total_cmp(&db).then((a & 1).cmp(&(b & 1)))
            })
            .expect("some code")
    }

    #[test]
    fn narrowing_from_f64_rounds_once() {
        // Just above a tie in f64, exactly a tie in f32: two roundings would go down.
        let above_tie = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
        let below_tie = 1.0 + 3.0 * 2f64.powi(-8) - 2f64.powi(-40);
        let half_tie = 1.0 + 2f64.powi(-11) + 2f64.powi(-45);
        let values = [above_tie, below_tie, half_tie, -above_tie, 0.1, 1e-40, -3e-41, 2e-8, 65519.9];
        for value in values {
            let mut bytes = [0; 2];
            ElementType::Bf16.encode(&[value], &mut bytes);
            let best = nearest(value, |c| bf16::from_bits(c).to_f64());
            assert_eq!(bf16::from_le_bytes(bytes).to_f64(), bf16::from_bits(best).to_f64(), "{value}");
            ElementType::F16.encode(&[value], &mut bytes);
            let best = nearest(value, |c| f16::from_bits(c).to_f64());
            assert_eq!(f16::from_le_bytes(bytes).to_f64(), f16::from_bits(best).to_f64(), "{value}");
        }
    }

    #[test]
    fn kernel_conversions_agree_with_half() {
        let mut state = 1u32;
        for _ in 0..2000 {
            let mut values = [0f32; BLOCK];
            for value in &mut values {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *value = f32::from_bits(state);
                if !value.is_finite() {
                    *value = 0.0;
                }
            }
            let mut bytes = [0; BLOCK * 2];
            let rounded = bf16::store(&values, &mut bytes);
            for i in 0..BLOCK {
                assert_eq!(rounded[i].to_bits(), bf16::from_f32(values[i]).to_f32().to_bits());
            }
            let back = bf16::load(&bytes);
            assert_eq!(back.map(f32::to_bits), rounded.map(f32::to_bits));
            let rounded = f16::store(&values, &mut bytes);
            for i in 0..BLOCK {
                assert_eq!(rounded[i].to_bits(), f16::from_f32(values[i]).to_f32().to_bits());
            }
        }
    }

    #[test]
    fn ulps() {
        assert_eq!(ElementType::Bf16.ulp(1.0), 2f64.powi(-7));
        assert_eq!(ElementType::F16.ulp(0.0), 2f64.powi(-24));
        assert_eq!(ElementType::F32.ulp(-3.0), 2f64.powi(-22));
        assert_eq!(ElementType::Bf16.ulp(bf16::MAX.to_f64()), 2f64.powi(120));
    }
}
