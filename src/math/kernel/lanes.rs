//! What the merge kernel needs of a vector of sixteen floats, and plain arrays that provide it.

use half::f16;

/// Floats in one vector.
pub(in crate::math) const LANES: usize = 16;

/// How far below is far: more bits than a 16-bit type keeps.
pub(in crate::math) const FAR: f32 = 1.0 / 256.0;

/// Sixteen f32, and what the kernel does with them. Sealed: this module is private.
///
/// Every implementation does the same IEEE operations in the same order (fused multiply-add
/// included), so all of them give the same bytes.
#[allow(unreachable_pub, missing_docs, reason = "it bounds methods of a sealed public trait")]
pub trait Lanes: Copy {
    /// Vectors of one row that a tile keeps in registers.
    const ACROSS: usize;

    fn splat(value: f32) -> Self;
    fn load(values: &[f32; LANES]) -> Self;
    fn to_array(self) -> [f32; LANES];
    /// self · factor + sum, rounded once.
    fn mul_add(self, factor: Self, sum: Self) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    /// The larger magnitude of each pair by its bits, so that an infinity or a NaN always wins.
    fn max_magnitude(self, other: Self) -> Self;
    /// The lanes, as bits, whose magnitude is below 2⁻⁸ of that of `other`.
    fn far_below(self, other: Self) -> u32;
    /// Of updates, how many are not 0, and how many of those moved `old` to a `new` that equals it.
    fn touched_and_lost(self, new: Self, old: Self) -> [u32; 2];
    fn from_bf16(codes: &[[u8; 2]; LANES]) -> Self;
    /// Rounds to nearest even and stores; returns what the codes stand for.
    fn to_bf16(self, codes: &mut [[u8; 2]; LANES]) -> Self;
    fn from_f16(codes: &[[u8; 2]; LANES]) -> Self;
    /// Rounds to nearest even and stores; returns what the codes stand for.
    fn to_f16(self, codes: &mut [[u8; 2]; LANES]) -> Self;
    fn from_f32(bytes: &[[u8; 4]; LANES]) -> Self;
    fn to_f32(self, bytes: &mut [[u8; 4]; LANES]);
}

/// Work that can be done with any vectors.
pub(in crate::math) trait Task {
    type Output;
    fn run<V: Lanes>(self) -> Self::Output;
}

/// Plain arrays; the compiler's own vectors where it finds them.
#[derive(Clone, Copy)]
pub(in crate::math) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn each(self, other: Self, operation: impl Fn(f32, f32) -> f32) -> Self {
        let mut result = self.0;
        for (value, other) in result.iter_mut().zip(other.0) {
            *value = operation(*value, other);
        }
        Self(result)
    }
}

impl Lanes for Portable {
    const ACROSS: usize = 1;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        Self(*values)
    }

    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        self.0
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        let mut result = sum.0;
        for ((sum, value), factor) in result.iter_mut().zip(self.0).zip(factor.0) {
            *sum = value.mul_add(factor, *sum);
        }
        Self(result)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.each(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.each(other, |a, b| a - b)
    }

    #[inline(always)]
    fn max_magnitude(self, other: Self) -> Self {
        self.each(other, |a, b| f32::from_bits(a.abs().to_bits().max(b.abs().to_bits())))
    }

    #[inline(always)]
    fn far_below(self, other: Self) -> u32 {
        let below = |(a, b): (&f32, f32)| a.abs() < b.abs() * FAR;
        self.0.iter().zip(other.0).rev().fold(0, |bits, pair| bits << 1 | u32::from(below(pair)))
    }

    #[inline(always)]
    fn touched_and_lost(self, new: Self, old: Self) -> [u32; 2] {
        let (mut touched, mut lost) = (0, 0);
        for ((update, new), old) in self.0.iter().zip(new.0).zip(old.0) {
            touched += u32::from(*update != 0.0);
            lost += u32::from(*update != 0.0 && new == old);
        }
        [touched, lost]
    }

    #[inline(always)]
    fn from_bf16(codes: &[[u8; 2]; LANES]) -> Self {
        Self(codes.map(|code| f32::from_bits(u32::from(u16::from_le_bytes(code)) << 16)))
    }

    #[inline(always)]
    fn to_bf16(self, codes: &mut [[u8; 2]; LANES]) -> Self {
        let rounded = self.0.map(|value| {
            let bits = value.to_bits();
            bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16
        });
        *codes = rounded.map(|code| (code as u16).to_le_bytes());
        Self(rounded.map(|code| f32::from_bits(code << 16)))
    }

    #[inline(always)]
    fn from_f16(codes: &[[u8; 2]; LANES]) -> Self {
        Self(codes.map(|code| f16::from_le_bytes(code).to_f32()))
    }

    #[inline(always)]
    fn to_f16(self, codes: &mut [[u8; 2]; LANES]) -> Self {
        let rounded = self.0.map(f16::from_f32);
        *codes = rounded.map(f16::to_le_bytes);
        Self(rounded.map(f16::to_f32))
    }

    #[inline(always)]
    fn from_f32(bytes: &[[u8; 4]; LANES]) -> Self {
        Self(bytes.map(f32::from_le_bytes))
    }

    #[inline(always)]
    fn to_f32(self, bytes: &mut [[u8; 4]; LANES]) {
        *bytes = self.0.map(f32::to_le_bytes);
    }
}
