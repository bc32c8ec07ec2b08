//! The merge kernel's arithmetic in the machine's widest instructions, chosen when it runs.
//!
//! This file holds the crate's only `unsafe` beside the memory map: calls of vector instructions, made
//! only inside functions that are compiled for them and entered only after they were detected.

use super::lanes::{Portable, Task};

/// Does a task with the widest vectors this machine has.
pub(in crate::math) fn dispatch<T: Task>(task: T) -> T::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(level) = x86::detect() {
        return x86::run(level, task);
    }
    task.run::<Portable>()
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind their detection")]
#[allow(clippy::cast_ptr_alignment, reason = "all loads and stores here take any address")]
mod x86 {
    #[allow(
        clippy::wildcard_imports,
        reason = "half a hundred instructions, by their own names"
    )]
    use std::arch::x86_64::*;

    use crate::math::kernel::lanes::{FAR, LANES, Lanes, Task};

    #[derive(Clone, Copy)]
    pub(in crate::math) enum Level {
        Avx512,
        Avx2,
    }

    pub(in crate::math) fn detect() -> Option<Level> {
        let common = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("popcnt");
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        match (common, wide) {
            (true, true) => Some(Level::Avx512),
            (true, false) => Some(Level::Avx2),
            _ => None,
        }
    }

    pub(in crate::math) fn run<T: Task>(level: Level, task: T) -> T::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,popcnt")]
        fn avx512<T: Task>(task: T) -> T::Output {
            task.run::<Avx512>()
        }
        #[target_feature(enable = "avx2,fma,f16c,popcnt")]
        fn avx2<T: Task>(task: T) -> T::Output {
            task.run::<Avx2>()
        }
        match level {
            // SAFETY: `detect` returns this level only where all these features are.
            Level::Avx512 => unsafe { avx512(task) },
            // SAFETY: likewise.
            Level::Avx2 => unsafe { avx2(task) },
        }
    }

    // SAFETY of every block below: these types exist only inside `run`'s functions, into which all of
    // this is inlined and which are compiled for the instructions used; pointers come from references
    // to arrays of exactly the bytes that are read or written, with instructions that need no
    // alignment.

    #[derive(Clone, Copy)]
    pub(in crate::math) struct Avx512(__m512);

    impl Lanes for Avx512 {
        const ACROSS: usize = 4;

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_set1_ps(value)) }
        }

        #[inline(always)]
        fn load(values: &[f32; LANES]) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_loadu_ps(values.as_ptr())) }
        }

        #[inline(always)]
        fn to_array(self) -> [f32; LANES] {
            let mut values = [0.0; LANES];
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) };
            values
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, sum: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, sum.0)) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_add_ps(self.0, other.0)) }
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
        }

        #[inline(always)]
        fn max_magnitude(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                let a = _mm512_castps_si512(_mm512_abs_ps(self.0));
                let b = _mm512_castps_si512(_mm512_abs_ps(other.0));
                Self(_mm512_castsi512_ps(_mm512_max_epu32(a, b)))
            }
        }

        #[inline(always)]
        fn far_below(self, other: Self) -> u32 {
            // SAFETY: see above.
            unsafe {
                let limit = _mm512_mul_ps(_mm512_abs_ps(other.0), _mm512_set1_ps(FAR));
                u32::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(self.0), limit))
            }
        }

        #[inline(always)]
        fn touched_and_lost(self, new: Self, old: Self) -> [u32; 2] {
            // SAFETY: see above.
            unsafe {
                let touched = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(self.0, _mm512_setzero_ps());
                let lost = _mm512_mask_cmp_ps_mask::<_CMP_EQ_OQ>(touched, new.0, old.0);
                [touched.count_ones(), lost.count_ones()]
            }
        }

        #[inline(always)]
        fn from_bf16(codes: &[[u8; 2]; LANES]) -> Self {
            // SAFETY: see above.
            unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(codes.as_ptr().cast()));
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
            }
        }

        #[inline(always)]
        fn to_bf16(self, codes: &mut [[u8; 2]; LANES]) -> Self {
            // SAFETY: see above.
            unsafe {
                let bits = _mm512_castps_si512(self.0);
                let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                let up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
                let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, up));
                let packed = _mm512_cvtepi32_epi16(rounded);
                _mm256_storeu_si256(codes.as_mut_ptr().cast(), packed);
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(rounded)))
            }
        }

        #[inline(always)]
        fn from_f16(codes: &[[u8; 2]; LANES]) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(codes.as_ptr().cast()))) }
        }

        #[inline(always)]
        fn to_f16(self, codes: &mut [[u8; 2]; LANES]) -> Self {
            // SAFETY: see above.
            unsafe {
                let packed = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0);
                _mm256_storeu_si256(codes.as_mut_ptr().cast(), packed);
                Self(_mm512_cvtph_ps(packed))
            }
        }

        #[inline(always)]
        fn from_f32(bytes: &[[u8; 4]; LANES]) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_loadu_ps(bytes.as_ptr().cast())) }
        }

        #[inline(always)]
        fn to_f32(self, bytes: &mut [[u8; 4]; LANES]) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(bytes.as_mut_ptr().cast(), self.0) };
        }
    }

    #[derive(Clone, Copy)]
    pub(in crate::math) struct Avx2(__m256, __m256);

    impl Avx2 {
        /// The upper 16 of each 32 bits, rounded to nearest even, still in the low half.
        #[inline(always)]
        fn round_bf16(value: __m256) -> __m256i {
            // SAFETY: see above.
            unsafe {
                let bits = _mm256_castps_si256(value);
                let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
                let up = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
                _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, up))
            }
        }
    }

    impl Lanes for Avx2 {
        const ACROSS: usize = 1;

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
        }

        #[inline(always)]
        fn load(values: &[f32; LANES]) -> Self {
            let at = values.as_ptr();
            // SAFETY: see above.
            unsafe { Self(_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))) }
        }

        #[inline(always)]
        fn to_array(self) -> [f32; LANES] {
            let mut values = [0.0; LANES];
            let at = values.as_mut_ptr();
            // SAFETY: see above.
            unsafe {
                _mm256_storeu_ps(at, self.0);
                _mm256_storeu_ps(at.add(8), self.1);
            }
            values
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, sum: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                Self(
                    _mm256_fmadd_ps(self.0, factor.0, sum.0),
                    _mm256_fmadd_ps(self.1, factor.1, sum.1),
                )
            }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn max_magnitude(self, other: Self) -> Self {
            #[inline(always)]
            fn half(a: __m256, b: __m256) -> __m256 {
                // SAFETY: see above.
                unsafe {
                    let mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fff_ffff));
                    let a = _mm256_castps_si256(_mm256_and_ps(a, mask));
                    let b = _mm256_castps_si256(_mm256_and_ps(b, mask));
                    _mm256_castsi256_ps(_mm256_max_epu32(a, b))
                }
            }
            Self(half(self.0, other.0), half(self.1, other.1))
        }

        #[inline(always)]
        fn far_below(self, other: Self) -> u32 {
            #[inline(always)]
            fn half(a: __m256, b: __m256) -> u32 {
                // SAFETY: see above.
                unsafe {
                    let mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fff_ffff));
                    let limit = _mm256_mul_ps(_mm256_and_ps(b, mask), _mm256_set1_ps(FAR));
                    let below = _mm256_cmp_ps::<_CMP_LT_OQ>(_mm256_and_ps(a, mask), limit);
                    _mm256_movemask_ps(below).cast_unsigned()
                }
            }
            half(self.0, other.0) | half(self.1, other.1) << 8
        }

        #[inline(always)]
        fn touched_and_lost(self, new: Self, old: Self) -> [u32; 2] {
            #[inline(always)]
            fn half(update: __m256, new: __m256, old: __m256) -> [u32; 2] {
                // SAFETY: see above.
                unsafe {
                    let touched = _mm256_cmp_ps::<_CMP_NEQ_UQ>(update, _mm256_setzero_ps());
                    let same = _mm256_cmp_ps::<_CMP_EQ_OQ>(new, old);
                    let lost = _mm256_movemask_ps(_mm256_and_ps(touched, same));
                    [_mm256_movemask_ps(touched).count_ones(), lost.count_ones()]
                }
            }
            let (low, high) = (half(self.0, new.0, old.0), half(self.1, new.1, old.1));
            [low[0] + high[0], low[1] + high[1]]
        }

        #[inline(always)]
        fn from_bf16(codes: &[[u8; 2]; LANES]) -> Self {
            #[inline(always)]
            fn half(codes: __m128i) -> __m256 {
                // SAFETY: see above.
                unsafe {
                    let wide = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(codes));
                    _mm256_castsi256_ps(wide)
                }
            }
            let at = codes.as_ptr().cast::<__m128i>();
            // SAFETY: see above.
            unsafe { Self(half(_mm_loadu_si128(at)), half(_mm_loadu_si128(at.add(1)))) }
        }

        #[inline(always)]
        fn to_bf16(self, codes: &mut [[u8; 2]; LANES]) -> Self {
            let (low, high) = (Self::round_bf16(self.0), Self::round_bf16(self.1));
            // SAFETY: see above.
            unsafe {
                // Packing works within 128-bit halves; the permutation puts the quarters in order.
                let packed =
                    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
                _mm256_storeu_si256(codes.as_mut_ptr().cast(), packed);
                Self(
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
                )
            }
        }

        #[inline(always)]
        fn from_f16(codes: &[[u8; 2]; LANES]) -> Self {
            let at = codes.as_ptr().cast::<__m128i>();
            // SAFETY: see above.
            unsafe {
                Self(
                    _mm256_cvtph_ps(_mm_loadu_si128(at)),
                    _mm256_cvtph_ps(_mm_loadu_si128(at.add(1))),
                )
            }
        }

        #[inline(always)]
        fn to_f16(self, codes: &mut [[u8; 2]; LANES]) -> Self {
            let at = codes.as_mut_ptr().cast::<__m128i>();
            // SAFETY: see above.
            unsafe {
                let low = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0);
                let high = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1);
                _mm_storeu_si128(at, low);
                _mm_storeu_si128(at.add(1), high);
                Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
            }
        }

        #[inline(always)]
        fn from_f32(bytes: &[[u8; 4]; LANES]) -> Self {
            let at = bytes.as_ptr().cast::<f32>();
            // SAFETY: see above.
            unsafe { Self(_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))) }
        }

        #[inline(always)]
        fn to_f32(self, bytes: &mut [[u8; 4]; LANES]) {
            let at = bytes.as_mut_ptr().cast::<f32>();
            // SAFETY: see above.
            unsafe {
                _mm256_storeu_ps(at, self.0);
                _mm256_storeu_ps(at.add(8), self.1);
            }
        }
    }

    /// Runs a task at every level this machine has, for tests that compare them.
    #[cfg(test)]
    pub(in crate::math) fn levels() -> Vec<Level> {
        match detect() {
            Some(Level::Avx512) => vec![Level::Avx512, Level::Avx2],
            Some(Level::Avx2) => vec![Level::Avx2],
            None => Vec::new(),
        }
    }
}

/// What a task gives on every kind of vectors this machine has, the portable ones first.
#[cfg(test)]
pub(in crate::math) fn on_all<T: Task>(task: impl Fn() -> T) -> Vec<T::Output> {
    let mut outputs = vec![task().run::<Portable>()];
    #[cfg(target_arch = "x86_64")]
    outputs.extend(x86::levels().into_iter().map(|level| x86::run(level, task())));
    outputs
}
