//! The merge kernel: stored base rows + left · right → stored result rows, in one pass.
//!
//! Each tile of [`ROWS`] × [`BLOCK`] of the product is accumulated in registers with fused
//! multiply-adds from zero, added to the widened base, rounded once and stored; nothing of the
//! base's size is held. The order of every operation is the same for all instruction sets, so the
//! same bytes come out on every machine. Sums of what rounding did are a by-product.
//!
//! The one `unsafe` block calls a function compiled for instructions that were just detected.

use super::delta::DeltaStats;
use super::element::{BLOCK, Element};
use super::factor::{PackedLeft, PackedRight, ROWS};

/// What one step works on: a few rows of one block of columns.
type Tile = [[f32; BLOCK]; ROWS];

const EMPTY: Tile = [[0.0; BLOCK]; ROWS];

/// The right factor is walked in parts of about this many bytes, so that they stay in the cache.
const RIGHT_CACHE: usize = 192 << 10;

/// Exponent bits of a float: all set in an infinity or a NaN.
const NON_FINITE: u32 = 0x7f80_0000;

/// What a panel's merge found.
#[derive(Debug, Clone, Copy, Default)]
pub struct PanelResult {
    /// Sums of asked and added.
    pub stats: DeltaStats,
    /// Whether any base value, sum or stored result is infinite or NaN.
    pub non_finite: bool,
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
    dispatch::<I, O>(base, out, left, right)
}

/// Writes left · right itself, as f32, into `out` (rows × columns).
///
/// # Panics
/// If `out` has another length.
#[track_caller]
pub fn product(out: &mut [f32], left: &PackedLeft, right: &PackedRight) {
    assert_eq!(out.len(), left.rows() * right.columns(), "product elements");
    let columns = right.columns();
    for group in 0..left.group_count() {
        let first = group * ROWS;
        for block in 0..right.block_count() {
            let tile = tile::<16>(left.group(group), right.block(block));
            let from = block * BLOCK;
            let width = BLOCK.min(columns - from);
            for (row, values) in tile.iter().enumerate().take(left.rows() - first) {
                out[(first + row) * columns + from..][..width].copy_from_slice(&values[..width]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "calling a function compiled for detected instructions")]
fn dispatch<I: Element, O: Element>(
    base: &[u8],
    out: &mut [u8],
    left: &PackedLeft,
    right: &PackedRight,
) -> PanelResult {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma,f16c")]
    fn avx512<I: Element, O: Element>(
        base: &[u8],
        out: &mut [u8],
        left: &PackedLeft,
        right: &PackedRight,
    ) -> PanelResult {
        merge::<I, O, 64>(base, out, left, right)
    }
    #[target_feature(enable = "avx2,fma,f16c")]
    fn avx2<I: Element, O: Element>(
        base: &[u8],
        out: &mut [u8],
        left: &PackedLeft,
        right: &PackedRight,
    ) -> PanelResult {
        merge::<I, O, 16>(base, out, left, right)
    }
    let fma = is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    if fma
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
    {
        // SAFETY: every feature that `avx512` is compiled for was detected in the condition above.
        return unsafe { avx512::<I, O>(base, out, left, right) };
    }
    if fma && is_x86_feature_detected!("avx2") {
        // SAFETY: every feature that `avx2` is compiled for was detected in the condition above.
        return unsafe { avx2::<I, O>(base, out, left, right) };
    }
    merge::<I, O, 16>(base, out, left, right)
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch<I: Element, O: Element>(
    base: &[u8],
    out: &mut [u8],
    left: &PackedLeft,
    right: &PackedRight,
) -> PanelResult {
    merge::<I, O, 16>(base, out, left, right)
}

/// One tile of left · right, `WIDTH` columns at a time: as many as the machine's registers hold.
#[inline(always)]
fn tile<const WIDTH: usize>(
    left: &[[f32; ROWS]],
    right: &[[f32; BLOCK]],
) -> Tile {
    let mut result = EMPTY;
    for part in 0..BLOCK / WIDTH {
        let mut sums = [[0f32; WIDTH]; ROWS];
        for (scales, values) in left.iter().zip(right) {
            let values = &values[part * WIDTH..][..WIDTH];
            for (row, scale) in sums.iter_mut().zip(scales) {
                for (sum, value) in row.iter_mut().zip(values) {
                    *sum = scale.mul_add(*value, *sum);
                }
            }
        }
        for (row, sums) in result.iter_mut().zip(&sums) {
            row[part * WIDTH..][..WIDTH].copy_from_slice(sums);
        }
    }
    result
}

#[inline(always)]
fn merge<I: Element, O: Element, const WIDTH: usize>(
    base: &[u8],
    out: &mut [u8],
    left: &PackedLeft,
    right: &PackedRight,
) -> PanelResult {
    let (rows, columns, blocks) = (left.rows(), right.columns(), right.block_count());
    let mut result = PanelResult::default();
    result.stats.elements = (rows * columns) as u64;
    // Counted down as changes are found.
    result.stats.unchanged = result.stats.elements;
    let part = (RIGHT_CACHE / (right.depth().max(1) * BLOCK * 4)).max(1);
    for first_block in (0..blocks).step_by(part) {
        for group in 0..left.group_count() {
            let first = group * ROWS;
            let mut sums = Sums::default();
            for block in first_block..(first_block + part).min(blocks) {
                let deltas = tile::<WIDTH>(left.group(group), right.block(block));
                let from = block * BLOCK;
                let width = BLOCK.min(columns - from);
                let (mut old, mut sum, mut new) = (EMPTY, EMPTY, EMPTY);
                for row in 0..ROWS.min(rows - first) {
                    let at = (first + row) * columns + from;
                    old[row] = I::load(&base[at * I::SIZE..][..width * I::SIZE]);
                    for i in 0..BLOCK {
                        sum[row][i] = old[row][i] + deltas[row][i];
                    }
                    new[row] = O::store(&sum[row], &mut out[at * O::SIZE..][..width * O::SIZE]);
                }
                sums.add(&deltas, &old, &sum, &new);
            }
            sums.flush(&mut result);
        }
    }
    result
}

/// Running sums over a few thousand elements: one lane of f32 for each column of a tile.
struct Sums {
    asked: [f32; BLOCK],
    added: [f32; BLOCK],
    dot: [f32; BLOCK],
    changed: [u32; BLOCK],
    worst: [u32; BLOCK],
}

impl Default for Sums {
    fn default() -> Self {
        let (zeros, none) = ([0.0; BLOCK], [0; BLOCK]);
        Self { asked: zeros, added: zeros, dot: zeros, changed: none, worst: none }
    }
}

impl Sums {
    // Rows and columns that only fill up the tile are zeros throughout, and change nothing here.
    #[inline(always)]
    fn add(&mut self, deltas: &Tile, old: &Tile, sum: &Tile, new: &Tile) {
        for i in 0..BLOCK {
            let (mut asked, mut added, mut dot) = (self.asked[i], self.added[i], self.dot[i]);
            let (mut changed, mut worst) = (self.changed[i], self.worst[i]);
            for row in 0..ROWS {
                let delta = deltas[row][i];
                let change = new[row][i] - old[row][i];
                asked = delta.mul_add(delta, asked);
                added = change.mul_add(change, added);
                dot = delta.mul_add(change, dot);
                changed += u32::from(change != 0.0);
                worst = worst.max(sum[row][i].to_bits() & NON_FINITE);
                worst = worst.max(new[row][i].to_bits() & NON_FINITE);
            }
            (self.asked[i], self.added[i], self.dot[i]) = (asked, added, dot);
            (self.changed[i], self.worst[i]) = (changed, worst);
        }
    }

    #[inline(always)]
    fn flush(&self, result: &mut PanelResult) {
        for i in 0..BLOCK {
            result.stats.asked += f64::from(self.asked[i]);
            result.stats.added += f64::from(self.added[i]);
            result.stats.dot += f64::from(self.dot[i]);
            result.stats.unchanged -= u64::from(self.changed[i]);
            result.non_finite |= self.worst[i] == NON_FINITE;
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::math::Factor;
    use crate::math::element::ElementType;

    fn random(seed: &mut u64, count: usize, size: f32) -> Vec<f32> {
        (0..count)
            .map(|_| {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
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

        let mut portable = vec![0; weights.len() * O::SIZE];
        let expected = merge::<I, O, 16>(&base, &mut portable, &left, &right);
        let mut out = vec![0; portable.len()];
        let result = merge_panel::<I, O>(&base, &mut out, &left, &right);
        assert_eq!(out, portable, "all instruction sets give the same bytes");
        assert_eq!(result.stats, expected.stats);
        assert!(!result.non_finite);

        let mut got = vec![0.0; weights.len()];
        output.decode(&out, &mut got);
        let (mut unchanged, mut asked, mut added) = (0, 0.0, 0.0);
        for row in 0..rows {
            for column in 0..columns {
                let delta: f64 = (0..depth)
                    .map(|k| f64::from(up.row(row)[k]) * scale * f64::from(down.row(k)[column]))
                    .sum();
                let at = row * columns + column;
                let exact = stored[at] + delta;
                let bound = output.ulp(exact) * 0.5 + (depth + 2) as f64 * 2e-7;
                assert!((got[at] - exact).abs() <= bound, "{} against {exact}", got[at]);
                unchanged += u64::from(got[at] == stored[at]);
                asked += delta * delta;
                added += (got[at] - stored[at]).powi(2);
            }
        }
        assert_eq!(result.stats.unchanged, unchanged);
        assert!((result.stats.asked - asked).abs() <= 1e-5 * asked + 1e-12);
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
}
