//! The fused merge: stored base rows + left · right → stored result rows, in one pass.
//!
//! Each tile of the product is accumulated in registers from zero, added to the widened base, rounded
//! once and stored; nothing of the base's size is held. Sums of what rounding did are a by-product.

use std::marker::PhantomData;

use super::delta::DeltaStats;
use super::element::Element;
use super::factor::{BLOCK, PackedLeft, PackedRight, ROWS};
use super::lanes::{LANES, Lanes, Task};
use super::vectors::dispatch;

/// The right factor is walked in parts of about this many bytes, so that they stay in the cache.
const RIGHT_CACHE: usize = 192 << 10;

/// What a panel's merge found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PanelResult {
    /// Sums of asked and added.
    pub stats: DeltaStats,
    /// Whether any base value, sum or stored result is infinite or NaN.
    pub non_finite: bool,
    /// Elements of a 16-bit result, by number in the panel, whose base and update all but cancelled:
    /// f32 has too few bits left there to round them right.
    pub cancelled: Vec<usize>,
}

/// Merges some whole rows: `out` = round(`base` + `left` · `right`), all row-major.
///
/// `base` and `out` hold rows × columns elements of `I` and `O`. f32 accumulation; one rounding.
///
/// # Panics
/// If the lengths of the slices disagree with the factors' rows and columns.
#[track_caller]
pub fn merge_panel<I: Element, O: Element>(
    base: &[u8],
    out: &mut [u8],
    left: &PackedLeft,
    right: &PackedRight,
) -> PanelResult {
    let elements = left.rows() * right.columns();
    assert_eq!(base.len(), elements * I::SIZE, "base bytes");
    assert_eq!(out.len(), elements * O::SIZE, "output bytes");
    dispatch(Merge { base, out, left, right, types: PhantomData::<(I, O)> })
}

/// Writes left · right itself, as f32, into `out` (rows × columns).
///
/// # Panics
/// If `out` has another length.
#[track_caller]
pub fn product(out: &mut [f32], left: &PackedLeft, right: &PackedRight) {
    assert_eq!(out.len(), left.rows() * right.columns(), "product elements");
    dispatch(Product { out, left, right });
}

/// A row group's part of one block of the product: ROWS × ACROSS vectors, from column `first` on.
#[inline(always)]
fn tile<V: Lanes, const ACROSS: usize>(
    left: &[[f32; ROWS]],
    right: &[[f32; BLOCK]],
    first: usize,
) -> [[V; ACROSS]; ROWS] {
    let mut sums = [[V::splat(0.0); ACROSS]; ROWS];
    for (scales, values) in left.iter().zip(right) {
        let parts = values.as_chunks::<LANES>().0;
        let mut loaded = [V::splat(0.0); ACROSS];
        for (at, slot) in loaded.iter_mut().enumerate() {
            *slot = V::load(&parts[first + at]);
        }
        for (row, scale) in sums.iter_mut().zip(scales) {
            let scale = V::splat(*scale);
            for (sum, values) in row.iter_mut().zip(loaded) {
                *sum = scale.mul_add(values, *sum);
            }
        }
    }
    sums
}

struct Merge<'a, I, O> {
    base: &'a [u8],
    out: &'a mut [u8],
    left: &'a PackedLeft,
    right: &'a PackedRight,
    types: PhantomData<(I, O)>,
}

impl<I: Element, O: Element> Task for Merge<'_, I, O> {
    type Output = PanelResult;

    #[inline(always)]
    fn run<V: Lanes>(self) -> PanelResult {
        // The number of vectors across must be a constant where the tile is laid out in registers.
        if V::ACROSS == 4 { self.walk::<V, 4>() } else { self.walk::<V, 1>() }
    }
}

impl<I: Element, O: Element> Merge<'_, I, O> {
    #[inline(always)]
    fn walk<V: Lanes, const ACROSS: usize>(self) -> PanelResult {
        let (rows, columns, blocks) =
            (self.left.rows(), self.right.columns(), self.right.block_count());
        let mut result = PanelResult::default();
        result.stats.elements = (rows * columns) as u64;
        let part = (RIGHT_CACHE / (self.right.depth().max(1) * BLOCK * 4)).max(1);
        for first_block in (0..blocks).step_by(part) {
            for group in 0..self.left.group_count() {
                let first = group * ROWS;
                let mut sums = Sums::<V>::new();
                for block in first_block..(first_block + part).min(blocks) {
                    let (left, right) = (self.left.group(group), self.right.block(block));
                    let from = block * BLOCK;
                    let width = BLOCK.min(columns - from);
                    for step in (0..BLOCK / LANES).step_by(ACROSS) {
                        let deltas = tile::<V, ACROSS>(left, right, step);
                        // Down the rows first: with one vector across it is the only order, and
                        // sums must not depend on how many there are.
                        for across in 0..ACROSS {
                            let lane = (step + across) * LANES;
                            for (row, deltas) in deltas.iter().enumerate().take(rows - first) {
                                let at = (first + row) * columns + from;
                                let source = &self.base[at * I::SIZE..(at + width) * I::SIZE];
                                let target = &mut self.out[at * O::SIZE..(at + width) * O::SIZE];
                                let far = sums.merge::<I, O>(deltas[across], lane, source, target);
                                if O::NARROW && far != 0 {
                                    note(far, at + lane, &mut result.cancelled);
                                }
                            }
                        }
                    }
                }
                sums.flush(O::LEAST_INFINITE, &mut result);
            }
        }
        result
    }
}

/// Notes the elements of a mask, from number `first` on.
#[cold]
fn note(mut mask: u32, first: usize, noted: &mut Vec<usize>) {
    while mask != 0 {
        noted.push(first + mask.trailing_zeros() as usize);
        mask &= mask - 1;
    }
}

/// Running sums over a few thousand elements.
struct Sums<V> {
    asked: V,
    added: V,
    dot: V,
    worst: V,
    touched: u32,
    lost: u32,
}

impl<V: Lanes> Sums<V> {
    #[inline(always)]
    fn new() -> Self {
        let zero = V::splat(0.0);
        Self { asked: zero, added: zero, dot: zero, worst: zero, touched: 0, lost: 0 }
    }

    /// Sixteen elements from number `lane` of a row's block, or as many as there are. Gives those
    /// whose sum is far below the base, as bits.
    #[inline(always)]
    fn merge<I: Element, O: Element>(
        &mut self,
        delta: V,
        lane: usize,
        base: &[u8],
        out: &mut [u8],
    ) -> u32 {
        let (from, to) = (lane * I::SIZE, lane * O::SIZE);
        let whole =
            base.get(from..from + LANES * I::SIZE).zip(out.get_mut(to..to + LANES * O::SIZE));
        if let Some((base, out)) = whole {
            return self.merge_whole::<I, O>(delta, base, out);
        }
        // The last block of a row: the same on copies filled up with zeros, which add to no sum.
        let (mut padded, mut stored) = ([0; LANES * 8], [0; LANES * 8]);
        let (Some(base), Some(out)) = (base.get(from..), out.get_mut(to..)) else { return 0 };
        padded[..base.len()].copy_from_slice(base);
        let (source, target) = (&padded[..LANES * I::SIZE], &mut stored[..LANES * O::SIZE]);
        let far = self.merge_whole::<I, O>(delta, source, target);
        out.copy_from_slice(&stored[..out.len()]);
        far
    }

    #[inline(always)]
    fn merge_whole<I: Element, O: Element>(
        &mut self,
        delta: V,
        base: &[u8],
        out: &mut [u8],
    ) -> u32 {
        let old: V = I::load(base);
        let sum = old.add(delta);
        let new: V = O::store(sum, out);
        let change = new.sub(old);
        self.asked = delta.mul_add(delta, self.asked);
        self.added = change.mul_add(change, self.added);
        self.dot = delta.mul_add(change, self.dot);
        self.worst = self.worst.max_magnitude(sum);
        let [touched, lost] = delta.touched_and_lost(new, old);
        self.touched += touched;
        self.lost += lost;
        if O::NARROW { sum.far_below(old) } else { 0 }
    }

    #[inline(always)]
    fn flush(self, limit: f32, result: &mut PanelResult) {
        let sum = |lanes: V| lanes.to_array().iter().map(|lane| f64::from(*lane)).sum::<f64>();
        result.stats.asked += sum(self.asked);
        result.stats.added += sum(self.added);
        result.stats.dot += sum(self.dot);
        result.stats.touched += u64::from(self.touched);
        result.stats.lost += u64::from(self.lost);
        // Not `>= limit`, which a NaN would pass.
        let fits = |lane: &f32| *lane < limit;
        result.non_finite |= !self.worst.to_array().iter().all(fits);
    }
}

struct Product<'a> {
    out: &'a mut [f32],
    left: &'a PackedLeft,
    right: &'a PackedRight,
}

impl Task for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        if V::ACROSS == 4 { self.walk::<V, 4>() } else { self.walk::<V, 1>() }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn walk<V: Lanes, const ACROSS: usize>(self) {
        let (rows, columns) = (self.left.rows(), self.right.columns());
        for group in 0..self.left.group_count() {
            let first = group * ROWS;
            for block in 0..self.right.block_count() {
                let (left, right) = (self.left.group(group), self.right.block(block));
                for step in (0..BLOCK / LANES).step_by(ACROSS) {
                    let tile = tile::<V, ACROSS>(left, right, step);
                    let from = block * BLOCK + step * LANES;
                    for (row, sums) in tile.iter().enumerate().take(rows - first) {
                        let row = &mut self.out[(first + row) * columns..][..columns];
                        let row = row.get_mut(from..).unwrap_or_default();
                        for (sum, out) in sums.iter().zip(row.chunks_mut(LANES)) {
                            out.copy_from_slice(&sum.to_array()[..out.len()]);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::math::Factor;
    use crate::math::kernel::element::ElementType;
    use crate::math::kernel::vectors as kernel;

    /// A merge that keeps its output, to run on every kind of vectors.
    struct Recorded<'a, I, O> {
        base: &'a [u8],
        left: &'a PackedLeft,
        right: &'a PackedRight,
        types: PhantomData<(I, O)>,
    }

    impl<I: Element, O: Element> Task for Recorded<'_, I, O> {
        type Output = (Vec<u8>, PanelResult);

        fn run<V: Lanes>(self) -> Self::Output {
            let mut out = vec![0; self.left.rows() * self.right.columns() * O::SIZE];
            let (base, left, right) = (self.base, self.left, self.right);
            let types = PhantomData::<(I, O)>;
            let result = Merge { base, out: &mut out, left, right, types }.run::<V>();
            (out, result)
        }
    }

    fn random(seed: &mut u64, count: usize, size: f32) -> Vec<f32> {
        (0..count)
            .map(|_| {
                *seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                ((*seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * size
            })
            .collect()
    }

    fn check<I: Element, O: Element>(
        (input, output): (ElementType, ElementType),
        (rows, columns, depth): (usize, usize, usize),
        seed: u64,
    ) {
        let mut seed = seed;
        let weights: Vec<f64> =
            random(&mut seed, rows * columns, 1.0).into_iter().map(f64::from).collect();
        let mut base = vec![0; weights.len() * I::SIZE];
        input.encode(&weights, &mut base);
        let mut stored = vec![0.0; weights.len()];
        input.decode(&base, &mut stored);
        let up = Factor::new(rows, depth, random(&mut seed, rows * depth, 0.3));
        let down = Factor::new(depth, columns, random(&mut seed, depth * columns, 0.3));
        let scale = 0.75;
        let left = PackedLeft::new(&[(up.clone(), scale)], 0, rows);
        let right = PackedRight::new(columns, std::slice::from_ref(&down));

        let mut out = vec![0; weights.len() * O::SIZE];
        let result = merge_panel::<I, O>(&base, &mut out, &left, &right);
        assert!(!result.non_finite);
        let run =
            || Recorded::<I, O> { base: &base, left: &left, right: &right, types: PhantomData };
        for (bytes, stats) in kernel::on_all(run) {
            assert_eq!(bytes, out, "all instruction sets give the same bytes");
            assert_eq!(stats, result);
        }

        let mut got = vec![0.0; weights.len()];
        output.decode(&out, &mut got);
        let (mut touched, mut lost, mut asked, mut added, mut slack) = (0, 0, 0.0, 0.0, 1e-12);
        for row in 0..rows {
            for column in 0..columns {
                let delta: f64 = (0..depth)
                    .map(|k| f64::from(up.row(row)[k]) * scale * f64::from(down.row(k)[column]))
                    .sum();
                let at = row * columns + column;
                let exact = stored[at] + delta;
                let bound = output.ulp(exact) * 0.5 + (depth + 2) as f64 * 2e-7;
                assert!((got[at] - exact).abs() <= bound, "{} against {exact}", got[at]);
                touched += u64::from(depth > 0);
                lost += u64::from(depth > 0 && got[at] == stored[at]);
                // A delta whose terms cancel keeps the rounding of the terms.
                let terms = (0..depth).map(|k| (up.row(row)[k] * down.row(k)[column]).abs());
                let rounding = f64::from(terms.sum::<f32>()) * (depth + 4) as f64 * 6e-8;
                slack += (2.0 * delta.abs() + rounding) * rounding;
                asked += delta * delta;
                added += (got[at] - stored[at]).powi(2);
            }
        }
        assert_eq!((result.stats.touched, result.stats.lost), (touched, lost));
        assert!((result.stats.asked - asked).abs() <= 1e-5 * asked + slack);
        assert!((result.stats.added - added).abs() <= 1e-5 * added + 1e-12);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn agrees_with_f64(rows in 1usize..19, columns in 1usize..200, depth in 0usize..20, seed: u64) {
            use ElementType::{Bf16, F16, F32};
            let shape = (rows, columns, depth);
            check::<bf16, bf16>((Bf16, Bf16), shape, seed);
            check::<f16, f16>((F16, F16), shape, seed);
            check::<f32, f32>((F32, F32), shape, seed);
            check::<f32, bf16>((F32, Bf16), shape, seed);
            check::<bf16, f32>((Bf16, F32), shape, seed);
        }
    }

    #[test]
    fn a_deep_update_walks_the_right_factor_in_parts() {
        check::<bf16, bf16>((ElementType::Bf16, ElementType::Bf16), (5, 300, 700), 7);
    }

    #[test]
    fn infinities_are_seen() {
        let left = PackedLeft::new(&[(Factor::new(1, 1, vec![1.0]), 1.0)], 0, 1);
        for (base, delta) in [(1.0f32, 3e38f32), (f32::NAN, 0.0), (f32::INFINITY, 0.0)] {
            let right = PackedRight::new(1, &[Factor::new(1, 1, vec![delta])]);
            let mut out = [0; 2];
            let result = merge_panel::<f32, f16>(&base.to_le_bytes(), &mut out, &left, &right);
            assert!(result.non_finite, "{base} + {delta}");
        }
        let right = PackedRight::new(1, &[Factor::new(1, 1, vec![f32::MAX])]);
        let mut out = [0; 2];
        let rounded_up = merge_panel::<f32, bf16>(&0f32.to_le_bytes(), &mut out, &left, &right);
        assert!(rounded_up.non_finite, "f32::MAX rounds to infinity in bf16");
    }

    #[test]
    fn cancelled_elements_are_named() {
        let left = PackedLeft::new(&[(Factor::new(1, 1, vec![1.0]), 1.0)], 0, 1);
        let mut update = vec![0.5; 70];
        (update[3], update[66]) = (-0.999, -1.0);
        let right = PackedRight::new(70, &[Factor::new(1, 70, update)]);
        let base: Vec<u8> = std::iter::repeat_n(1f32.to_le_bytes(), 70).flatten().collect();
        let mut out = vec![0; 140];
        let result = merge_panel::<f32, bf16>(&base, &mut out, &left, &right);
        assert_eq!(result.cancelled, [3, 66]);
        let mut out = vec![0; 280];
        assert!(merge_panel::<f32, f32>(&base, &mut out, &left, &right).cancelled.is_empty());
    }
}
