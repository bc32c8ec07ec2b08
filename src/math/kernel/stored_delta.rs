//! Stored values and what moves them: differences of two stored slices as f32, and the rounding of
//! moved values back into a stored slice.
//!
//! Elements are independent, so slices may be cut anywhere. f64 as a stored type is the caller's.

use std::marker::PhantomData;

use half::{bf16, f16};

use super::delta::DeltaStats;
use super::element::{Element, ElementType, to_odd};
use super::lanes::{LANES, Lanes, Task};
use super::vectors::dispatch;

/// Whether the kernels here take the type.
pub fn takes(element: ElementType) -> bool {
    element != ElementType::F64
}

/// Calls a kernel with its two stored types, and one more if it has that.
macro_rules! with_types {
    (@ $one:ty, $other:expr, $kernel:ident $(, $more:ty)?; $($argument:ident)*) => {
        match $other {
            ElementType::Bf16 => dispatch($kernel::<$one, bf16 $(, $more)?>::new($($argument),*)),
            ElementType::F16 => dispatch($kernel::<$one, f16 $(, $more)?>::new($($argument),*)),
            ElementType::F32 => dispatch($kernel::<$one, f32 $(, $more)?>::new($($argument),*)),
            ElementType::F64 => unreachable!("f64 is the caller's"),
        }
    };
    ($types:expr, $($kernel:tt)*) => {
        match $types.0 {
            ElementType::Bf16 => with_types!(@ bf16, $types.1, $($kernel)*),
            ElementType::F16 => with_types!(@ f16, $types.1, $($kernel)*),
            ElementType::F32 => with_types!(@ f32, $types.1, $($kernel)*),
            ElementType::F64 => unreachable!("f64 is the caller's"),
        }
    };
}

/// out = `moved` − `base`, as f32: rounded once, and +0 where both are the same. Whether all of
/// `moved` is finite.
///
/// A difference in f64, narrowed to f32, is the same to the bit: where f64 rounds it, the smaller
/// value is below what f32 resolves.
///
/// # Panics
/// If the lengths disagree or a type is not one that [`takes`] has.
#[track_caller]
pub fn subtract(
    types: (ElementType, ElementType),
    moved: &[u8],
    base: &[u8],
    out: &mut [f32],
) -> bool {
    assert_eq!(moved.len(), out.len() * types.0.size(), "moved bytes");
    assert_eq!(base.len(), out.len() * types.1.size(), "base bytes");
    with_types!(types, Subtract; moved base out)
}

/// values += weight · (`moved` − `base`), in f64, where they differ. Whether all of `moved` is finite.
///
/// # Panics
/// As [`subtract`].
#[track_caller]
pub fn add_difference(
    types: (ElementType, ElementType),
    moved: &[u8],
    base: &[u8],
    weight: f64,
    values: &mut [f64],
) -> bool {
    assert_eq!(moved.len(), values.len() * types.0.size(), "moved bytes");
    assert_eq!(base.len(), values.len() * types.1.size(), "base bytes");
    with_types!(types, AddDifference; moved base weight values)
}

/// values · factor, rounded once from f64; +0 for −0, as a sum has it.
pub fn scale(values: &mut [f32], factor: f64) {
    dispatch(Scale { values, factor });
}

/// What moves a base.
#[derive(Debug, Clone, Copy)]
pub enum Move<'a> {
    /// These are added, those that are 0 not: that would take the sign of a −0.
    By(&'a [f32]),
    /// These are the values.
    To(&'a [f64]),
}

/// What came of rounding.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rounded {
    /// Sums of asked and added.
    pub stats: DeltaStats,
    /// Whether any base value or result is infinite or NaN.
    pub non_finite: bool,
}

/// out = the moved base, rounded once from f64; `types` are the base's and the result's.
///
/// # Panics
/// As [`subtract`].
#[track_caller]
pub fn round(
    types: (ElementType, ElementType),
    base: &[u8],
    to: Move<'_>,
    out: &mut [u8],
) -> Rounded {
    let elements = match to {
        Move::By(values) => values.len(),
        Move::To(values) => values.len(),
    };
    assert_eq!(base.len(), elements * types.0.size(), "base bytes");
    assert_eq!(out.len(), elements * types.1.size(), "result bytes");
    match to {
        Move::By(values) => with_types!(types, Round, f32; base values out),
        Move::To(values) => with_types!(types, Round, f64; base values out),
    }
}

/// Sixteen elements, or as many as there are and zeros.
#[inline(always)]
fn load<V: Lanes, E: Element>(bytes: &[u8]) -> V {
    if bytes.len() == LANES * E::SIZE {
        return E::load(bytes);
    }
    let mut padded = [0; LANES * 4];
    padded[..bytes.len()].copy_from_slice(bytes);
    E::load(&padded[..LANES * E::SIZE])
}

// Loops, not `map` of arrays, which is not always compiled into the kernel.
#[inline(always)]
fn widen<V: Lanes>(values: V) -> [f64; LANES] {
    let mut wide = [0.0; LANES];
    for (wide, value) in wide.iter_mut().zip(values.to_array()) {
        *wide = f64::from(value);
    }
    wide
}

#[inline(always)]
fn padded<T: Copy + Default>(values: &[T]) -> [T; LANES] {
    if let Some(whole) = values.first_chunk() {
        return *whole;
    }
    let mut padded = [T::default(); LANES];
    padded[..values.len()].copy_from_slice(values);
    padded
}

struct Subtract<'a, M, B> {
    moved: &'a [u8],
    base: &'a [u8],
    out: &'a mut [f32],
    types: PhantomData<(M, B)>,
}

impl<'a, M, B> Subtract<'a, M, B> {
    fn new(moved: &'a [u8], base: &'a [u8], out: &'a mut [f32]) -> Self {
        Self { moved, base, out, types: PhantomData }
    }
}

impl<M: Element, B: Element> Task for Subtract<'_, M, B> {
    type Output = bool;

    #[inline(always)]
    fn run<V: Lanes>(self) -> bool {
        let mut largest = V::splat(0.0);
        let pairs = self.moved.chunks(LANES * M::SIZE).zip(self.base.chunks(LANES * B::SIZE));
        for ((moved, base), out) in pairs.zip(self.out.chunks_mut(LANES)) {
            let moved = load::<V, M>(moved);
            largest = largest.max_magnitude(moved);
            // −0 − 0 is −0, which the sum is not.
            let found = moved.sub(load::<V, B>(base)).add(V::splat(0.0)).to_array();
            match out.first_chunk_mut() {
                Some(whole) => *whole = found,
                None => out.copy_from_slice(&found[..out.len()]),
            }
        }
        largest.to_array().iter().all(|value| value.is_finite())
    }
}

struct AddDifference<'a, M, B> {
    moved: &'a [u8],
    base: &'a [u8],
    weight: f64,
    values: &'a mut [f64],
    types: PhantomData<(M, B)>,
}

impl<'a, M, B> AddDifference<'a, M, B> {
    fn new(moved: &'a [u8], base: &'a [u8], weight: f64, values: &'a mut [f64]) -> Self {
        Self { moved, base, weight, values, types: PhantomData }
    }
}

impl<M: Element, B: Element> Task for AddDifference<'_, M, B> {
    type Output = bool;

    #[inline(always)]
    fn run<V: Lanes>(self) -> bool {
        let mut largest = V::splat(0.0);
        let pairs = self.moved.chunks(LANES * M::SIZE).zip(self.base.chunks(LANES * B::SIZE));
        for ((moved, base), values) in pairs.zip(self.values.chunks_mut(LANES)) {
            let moved = load::<V, M>(moved);
            largest = largest.max_magnitude(moved);
            let (moved, base) = (moved.to_array(), load::<V, B>(base).to_array());
            for ((value, moved), base) in values.iter_mut().zip(moved).zip(base) {
                let sum = *value + self.weight * (f64::from(moved) - f64::from(base));
                *value = if moved == base { *value } else { sum };
            }
        }
        largest.to_array().iter().all(|value| value.is_finite())
    }
}

struct Scale<'a> {
    values: &'a mut [f32],
    factor: f64,
}

impl Task for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        for value in self.values {
            *value = (0.0 + self.factor * f64::from(*value)) as f32;
        }
    }
}

/// Where the moved values are from.
trait Source: Copy + Default {
    fn moved(self, base: f64) -> f64;
}

impl Source for f32 {
    #[inline(always)]
    fn moved(self, base: f64) -> f64 {
        if self == 0.0 { base } else { base + f64::from(self) }
    }
}

impl Source for f64 {
    #[inline(always)]
    fn moved(self, _: f64) -> f64 {
        self
    }
}

struct Round<'a, I, O, S> {
    base: &'a [u8],
    values: &'a [S],
    out: &'a mut [u8],
    types: PhantomData<(I, O)>,
}

impl<'a, I, O, S> Round<'a, I, O, S> {
    fn new(base: &'a [u8], values: &'a [S], out: &'a mut [u8]) -> Self {
        Self { base, values, out, types: PhantomData }
    }
}

impl<I: Element, O: Element, S: Source> Task for Round<'_, I, O, S> {
    type Output = Rounded;

    #[inline(always)]
    fn run<V: Lanes>(self) -> Rounded {
        let (mut asked, mut added, mut dot) = ([0f64; LANES], [0f64; LANES], [0f64; LANES]);
        let (mut touched, mut lost) = ([0u64; LANES], [0u64; LANES]);
        let (mut largest, mut overflow) = (V::splat(0.0), [0u32; LANES]);
        let elements = self.values.len() as u64;
        let rows = self.base.chunks(LANES * I::SIZE).zip(self.values.chunks(LANES));
        for ((base, values), out) in rows.zip(self.out.chunks_mut(LANES * O::SIZE)) {
            let (old, values) = (load::<V, I>(base), padded(values));
            largest = largest.max_magnitude(old);
            let wide = widen(old);
            let mut moved = [0f64; LANES];
            for ((moved, value), old) in moved.iter_mut().zip(values).zip(wide) {
                *moved = value.moved(old);
            }
            let mut narrow = [0f32; LANES];
            for lane in 0..LANES {
                // Narrowed further, it must not have been rounded to even before.
                let value = if O::NARROW { to_odd(moved[lane]) } else { moved[lane] as f32 };
                narrow[lane] = value;
                let finite = value.abs() < O::LEAST_INFINITE;
                overflow[lane] |= u32::from(!finite);
            }
            let mut whole = [0; LANES * 4];
            let stored = if out.len() == LANES * O::SIZE {
                O::store(V::load(&narrow), out)
            } else {
                let stored = O::store(V::load(&narrow), &mut whole[..LANES * O::SIZE]);
                out.copy_from_slice(&whole[..out.len()]);
                stored
            };
            let stored = widen(stored);
            for lane in 0..LANES {
                let (by, to) = (moved[lane] - wide[lane], stored[lane] - wide[lane]);
                asked[lane] += by * by;
                added[lane] += to * to;
                dot[lane] += by * to;
                touched[lane] += u64::from(by != 0.0);
                lost[lane] += u64::from(by != 0.0 && to == 0.0);
            }
        }
        let sum = |lanes: [f64; LANES]| lanes.iter().sum();
        let finite = largest.to_array().iter().all(|value| value.is_finite());
        Rounded {
            stats: DeltaStats {
                asked: sum(asked),
                added: sum(added),
                dot: sum(dot),
                touched: touched.iter().sum(),
                lost: lost.iter().sum(),
                elements,
            },
            non_finite: !finite || overflow.contains(&1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::kernel::vectors as kernel;

    const TYPES: [ElementType; 3] = [ElementType::Bf16, ElementType::F16, ElementType::F32];

    /// Finite values of all magnitudes, and neighbours of those in `near`, as a type stores them.
    fn values(element: ElementType, near: &[f64], seed: u32) -> (Vec<f64>, Vec<u8>) {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state
        };
        let make = |at: usize| match (next() % 4, near.get(at)) {
            (0, _) => [0.0, -0.0, 1.0, 1e-7][at % 4],
            (1, _) => f64::from(f32::from_bits(next() & 0xbf7f_ffff)),
            (_, Some(near)) => near * (1.0 + f64::from(next() % 64) / 1024.0),
            (_, None) => f64::from(next()) / 4e9 - 0.5,
        };
        let wanted: Vec<f64> = (0..333).map(make).collect();
        let wanted: Vec<f64> = wanted.iter().map(|value| value.clamp(-6e4, 6e4)).collect();
        let mut bytes = vec![0; wanted.len() * element.size()];
        element.encode(&wanted, &mut bytes);
        let mut stored = vec![0.0; wanted.len()];
        element.decode(&bytes, &mut stored);
        (stored, bytes)
    }

    #[test]
    fn differences_are_those_of_f64() {
        for (to, from) in TYPES.iter().flat_map(|to| TYPES.map(|from| (*to, from))) {
            let (base, base_bytes) = values(from, &[], 1);
            let (moved, moved_bytes) = values(to, &base, 2);
            for count in [1, 15, 16, 333] {
                let ends = (count * to.size(), count * from.size());
                let (moved_bytes, base_bytes) = (&moved_bytes[..ends.0], &base_bytes[..ends.1]);
                let mut found = vec![9.0; count];
                assert!(subtract((to, from), moved_bytes, base_bytes, &mut found));
                let mut sums = base[..count].to_vec();
                assert!(add_difference((to, from), moved_bytes, base_bytes, 0.3, &mut sums));
                for (at, (base, moved)) in base.iter().zip(&moved).take(count).enumerate() {
                    // As the panels of f64 have it: base + (moved − base) − base.
                    let difference = ((base + (moved - base)) - base) as f32;
                    assert_eq!(found[at].to_bits(), difference.to_bits(), "{base} {moved}");
                    let sum = if moved == base { *base } else { base + 0.3 * (moved - base) };
                    assert_eq!(sums[at].to_bits(), sum.to_bits());
                }
            }
        }
    }

    #[test]
    fn rounding_is_that_of_f64() {
        for (input, output) in TYPES.iter().flat_map(|one| TYPES.map(|other| (*one, other))) {
            let (base, base_bytes) = values(input, &[], 3);
            let by: Vec<f32> = base.iter().rev().map(|value| (value * 0.01) as f32 * 0.1).collect();
            let pairs = base.iter().zip(&by);
            let to: Vec<f64> = pairs
                .map(|(base, by)| if *by == 0.0 { *base } else { base + f64::from(*by) })
                .collect();
            for count in [1, 15, 16, 333] {
                let mut expected = vec![0; count * output.size()];
                output.encode(&to[..count], &mut expected);
                let mut stored = vec![0.0; count];
                output.decode(&expected, &mut stored);
                let asked = |to: &f64, base: &f64| to != base;
                let elements = || to.iter().zip(&base).take(count).zip(&stored);
                let touched = elements().filter(|((to, base), _)| asked(to, base)).count();
                let lost =
                    |((to, base), new): &((&f64, &f64), &f64)| asked(to, base) && new == base;
                let lost = elements().filter(lost).count();
                for source in [Move::By(&by[..count]), Move::To(&to[..count])] {
                    let mut out = vec![7; expected.len()];
                    let bytes = &base_bytes[..count * input.size()];
                    let found = round((input, output), bytes, source, &mut out);
                    assert_eq!(out, expected, "{input:?} {output:?} {count}");
                    assert!(!found.non_finite);
                    assert_eq!(found.stats.touched, touched as u64);
                    assert_eq!(found.stats.lost, lost as u64);
                    assert_eq!(found.stats.elements, count as u64);
                    let added = stored.iter().zip(&base).map(|(new, old)| (new - old).powi(2));
                    let added: f64 = added.sum();
                    assert!((found.stats.added - added).abs() <= 1e-12 * added);
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_told() {
        let (nan, one) = (f32::NAN.to_le_bytes(), 1f32.to_le_bytes());
        let types = (ElementType::F32, ElementType::F32);
        assert!(!subtract(types, &nan, &one, &mut [0.0]));
        assert!(!add_difference(types, &nan, &one, 1.0, &mut [0.0]));
        let narrow = (ElementType::F32, ElementType::F16);
        let overflow = |value: f64| round(narrow, &one, Move::To(&[value]), &mut [0, 0]).non_finite;
        assert!(!overflow(65519.9) && overflow(65520.0) && overflow(f64::NAN));
        assert!(round(narrow, &nan, Move::To(&[1.0]), &mut [0, 0]).non_finite);
    }

    #[test]
    fn all_instruction_sets_give_the_same_bits() {
        struct Both<'a>(&'a [u8], &'a [u8]);
        impl Task for Both<'_> {
            type Output = (Vec<u32>, Vec<u8>, Rounded);
            fn run<V: Lanes>(self) -> Self::Output {
                let mut found = vec![0.0; self.0.len() / 2];
                Subtract::<bf16, bf16>::new(self.0, self.1, &mut found).run::<V>();
                let mut out = vec![0; self.1.len()];
                let rounded = Round::<bf16, f16, f32>::new(self.1, &found, &mut out).run::<V>();
                (found.iter().map(|value| value.to_bits()).collect(), out, rounded)
            }
        }
        let (near, base) = values(ElementType::Bf16, &[], 5);
        let (_, moved) = values(ElementType::Bf16, &near, 6);
        let all = kernel::on_all(|| Both(&moved, &base));
        assert!(all.iter().all(|result| *result == all[0]));
    }
}
