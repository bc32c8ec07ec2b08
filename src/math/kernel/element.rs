//! Number types that weights are stored in, and their conversion to and from the working type.
//!
//! Narrowing rounds once, to nearest, ties to even. Bytes may be unaligned: a safetensors header of
//! odd length shifts everything after it.

use half::{bf16, f16};

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

    /// Whether it is f32, as decoded rows are.
    pub fn is_single(self) -> bool {
        self == Self::F32
    }

    /// Whether its values need f64: the kernels of 16 and 32 bits do not take it.
    pub fn is_wide(self) -> bool {
        self == Self::F64
    }

    /// Widens all of `bytes` into `out`; one element for each.
    ///
    /// # Panics
    /// If the lengths disagree.
    #[track_caller]
    pub fn decode(self, bytes: &[u8], out: &mut [f64]) {
        assert_eq!(bytes.len(), out.len() * self.size(), "bytes and elements differ");
        match self {
            Self::Bf16 => each(bytes, out, |b| f64::from(from_bf16(b))),
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
            Self::Bf16 => each(bytes, out, from_bf16),
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
            Self::Bf16 => put(values, bytes, |v| to_bf16(to_odd(v))),
            Self::F16 => put(values, bytes, |v| f16::from_f32(to_odd(v)).to_le_bytes()),
            Self::F32 => put(values, bytes, |v| (v as f32).to_le_bytes()),
            Self::F64 => put(values, bytes, f64::to_le_bytes),
        }
    }

    /// The largest finite value.
    pub fn largest(self) -> f64 {
        match self {
            Self::Bf16 => bf16::MAX.to_f64(),
            Self::F16 => f16::MAX.to_f64(),
            Self::F32 => f64::from(f32::MAX),
            Self::F64 => f64::MAX,
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
#[inline(always)]
pub(super) fn to_odd(value: f64) -> f32 {
    let near = value as f32;
    let back = f64::from(near);
    let stays = back == value || near.to_bits() & 1 == 1 || near.is_nan() || near.is_infinite();
    // An even `near` has an odd neighbour on the other side of `value`; magnitudes are ordered as
    // their bits are.
    let step = if back.abs() < value.abs() { 1 } else { u32::MAX };
    f32::from_bits(near.to_bits().wrapping_add(if stays { 0 } else { step }))
}

/// bf16 in f32, without the branches that a loop could not be vectorised with.
#[inline(always)]
fn from_bf16(code: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(code)) << 16)
}

/// The nearest bf16, ties to even; likewise.
#[inline(always)]
fn to_bf16(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let near = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let code = if value.is_nan() { bits >> 16 | 0x40 } else { near };
    (code as u16).to_le_bytes()
}

/// A stored type as the kernel sees it, fixed at compile time: sixteen elements at a time.
pub trait Element: sealed::Vectors {
    /// Bytes in one element.
    const SIZE: usize;

    /// The least magnitude that rounds to infinity.
    const LEAST_INFINITE: f32;

    /// Whether f32 sums leave a margin that cancellation can use up.
    const NARROW: bool;
}

impl Element for f32 {
    const SIZE: usize = 4;
    const LEAST_INFINITE: f32 = Self::INFINITY;
    const NARROW: bool = false;
}

impl Element for bf16 {
    const SIZE: usize = 2;
    // Half way between the largest bf16 and the one after it, which rounds up to even.
    const LEAST_INFINITE: f32 = f32::from_bits(0x7f7f_8000);
    const NARROW: bool = true;
}

impl Element for f16 {
    const SIZE: usize = 2;
    const LEAST_INFINITE: f32 = 65520.0;
    const NARROW: bool = true;
}

mod sealed {
    use super::{bf16, f16};
    use crate::math::kernel::lanes::{LANES, Lanes};

    /// Conversion of whole vectors; only this crate's three types have it.
    pub trait Vectors: Copy {
        /// Widens the first sixteen elements of `bytes`.
        fn load<V: Lanes>(bytes: &[u8]) -> V;
        /// Narrows into the first sixteen elements of `bytes`; returns what they stand for.
        fn store<V: Lanes>(values: V, bytes: &mut [u8]) -> V;
    }

    #[inline(always)]
    fn first<const N: usize>(bytes: &[u8]) -> &[[u8; N]; LANES] {
        match bytes.as_chunks::<N>().0.first_chunk() {
            Some(chunk) => chunk,
            None => unreachable!("sixteen elements were promised"),
        }
    }

    #[inline(always)]
    fn first_mut<const N: usize>(bytes: &mut [u8]) -> &mut [[u8; N]; LANES] {
        match bytes.as_chunks_mut::<N>().0.first_chunk_mut() {
            Some(chunk) => chunk,
            None => unreachable!("sixteen elements were promised"),
        }
    }

    impl Vectors for f32 {
        #[inline(always)]
        fn load<V: Lanes>(bytes: &[u8]) -> V {
            V::from_f32(first(bytes))
        }
        #[inline(always)]
        fn store<V: Lanes>(values: V, bytes: &mut [u8]) -> V {
            values.to_f32(first_mut(bytes));
            values
        }
    }

    impl Vectors for bf16 {
        #[inline(always)]
        fn load<V: Lanes>(bytes: &[u8]) -> V {
            V::from_bf16(first(bytes))
        }
        #[inline(always)]
        fn store<V: Lanes>(values: V, bytes: &mut [u8]) -> V {
            values.to_bf16(first_mut(bytes))
        }
    }

    impl Vectors for f16 {
        #[inline(always)]
        fn load<V: Lanes>(bytes: &[u8]) -> V {
            V::from_f16(first(bytes))
        }
        #[inline(always)]
        fn store<V: Lanes>(values: V, bytes: &mut [u8]) -> V {
            values.to_f16(first_mut(bytes))
        }
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
        let values =
            [above_tie, below_tie, half_tie, -above_tie, 0.1, 1e-40, -3e-41, 2e-8, 65519.9];
        for value in values {
            let mut bytes = [0; 2];
            ElementType::Bf16.encode(&[value], &mut bytes);
            let best = nearest(value, |c| bf16::from_bits(c).to_f64());
            assert_eq!(
                bf16::from_le_bytes(bytes).to_f64(),
                bf16::from_bits(best).to_f64(),
                "{value}"
            );
            ElementType::F16.encode(&[value], &mut bytes);
            let best = nearest(value, |c| f16::from_bits(c).to_f64());
            assert_eq!(
                f16::from_le_bytes(bytes).to_f64(),
                f16::from_bits(best).to_f64(),
                "{value}"
            );
        }
    }

    #[test]
    fn kernel_conversions_agree_with_half() {
        use crate::math::kernel::lanes::{LANES, Lanes, Task};
        use crate::math::kernel::vectors::on_all;

        struct Convert([f32; LANES]);
        impl Task for Convert {
            type Output = [[u32; LANES]; 4];
            fn run<V: Lanes>(self) -> Self::Output {
                let (mut wide, mut narrow) = ([[0; 2]; LANES], [[0; 2]; LANES]);
                let b = V::load(&self.0).to_bf16(&mut wide);
                let h = V::load(&self.0).to_f16(&mut narrow);
                [b, V::from_bf16(&wide), h, V::from_f16(&narrow)]
                    .map(|v| v.to_array().map(f32::to_bits))
            }
        }

        let mut state = 1u32;
        for _ in 0..4000 {
            let values = [0; LANES].map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let value = f32::from_bits(state);
                if value.is_finite() { value } else { 0.0 }
            });
            let b = values.map(|value| bf16::from_f32(value).to_f32().to_bits());
            let h = values.map(|value| f16::from_f32(value).to_f32().to_bits());
            for found in on_all(|| Convert(values)) {
                assert_eq!(found, [b, b, h, h]);
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
