//! Plain loops over slices, compiled for the widest vectors of the machine that they run on.
//!
//! The compiler makes vectors of such a loop itself, and does the same IEEE operations in the same order whatever
//! their width: all machines give the same numbers. What is not inlined into [`Loop::run`] is compiled for none.

use super::lanes::{LANES, Lanes, Task};
use super::vectors::dispatch;

/// A loop; `run` and what it calls are `#[inline(always)]`.
pub(crate) trait Loop {
    /// What it gives.
    type Output;
    /// Runs it.
    fn run(self) -> Self::Output;
}

/// Runs a loop with the widest vectors this machine has.
pub(crate) fn widest<L: Loop>(work: L) -> L::Output {
    dispatch(Plain(work))
}

struct Plain<L>(L);

impl<L: Loop> Task for Plain<L> {
    type Output = L::Output;

    #[inline(always)]
    fn run<V: Lanes>(self) -> L::Output {
        self.0.run()
    }
}

/// What many numbers come to.
pub(crate) trait Fold {
    /// What two come to.
    fn both(folded: f32, value: f32) -> f32;

    /// What `folded` and all `values` come to, in the order of the places of a vector.
    #[inline(always)]
    fn all(folded: f32, values: &[f32]) -> f32 {
        let (parts, rest) = values.as_chunks::<LANES>();
        let mut lanes = [folded; LANES];
        for part in parts {
            for (lane, value) in lanes.iter_mut().zip(part) {
                *lane = Self::both(*lane, *value);
            }
        }
        lanes.iter().chain(rest).fold(folded, |folded, value| Self::both(folded, *value))
    }
}

/// The largest magnitude, at least what it begins with; no number counts as none.
#[derive(Debug)]
pub(crate) struct Largest;

impl Fold for Largest {
    #[inline(always)]
    fn both(folded: f32, value: f32) -> f32 {
        let size = value.abs();
        if size > folded { size } else { folded }
    }
}

/// The least number.
#[derive(Debug)]
pub(crate) struct Least;

impl Fold for Least {
    #[inline(always)]
    fn both(folded: f32, value: f32) -> f32 {
        if value < folded { value } else { folded }
    }
}

/// The greatest number.
#[derive(Debug)]
pub(crate) struct Greatest;

impl Fold for Greatest {
    #[inline(always)]
    fn both(folded: f32, value: f32) -> f32 {
        if value > folded { value } else { folded }
    }
}

/// What each group of so many values comes to, from `start` on.
pub(crate) fn fold_groups<F: Fold>(start: f32, values: &[f32], group: usize) -> Vec<f32> {
    struct Groups<'a, F>(f32, &'a [f32], usize, std::marker::PhantomData<F>);
    impl<F: Fold> Loop for Groups<'_, F> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run(self) -> Vec<f32> {
            let mut found = Vec::with_capacity(self.1.len().div_ceil(self.2));
            for group in self.1.chunks(self.2) {
                found.push(F::all(self.0, group));
            }
            found
        }
    }
    widest(Groups::<F>(start, values, group.max(1), std::marker::PhantomData))
}

/// How many codes of 4 or 8 bits are the same in two stretches of bytes.
pub(crate) fn same_elements<const BITS: u32>(first: &[u8], second: &[u8]) -> u64 {
    struct Same<'a, const BITS: u32>(&'a [u8], &'a [u8]);
    impl<const BITS: u32> Loop for Same<'_, BITS> {
        type Output = u64;

        #[inline(always)]
        fn run(self) -> u64 {
            let mut same = 0;
            // So few that a byte counts them.
            for (first, second) in self.0.chunks(64).zip(self.1.chunks(64)) {
                let mut found = 0u8;
                for (first, second) in first.iter().zip(second) {
                    let differs = first ^ second;
                    found += match BITS {
                        8 => u8::from(differs == 0),
                        _ => u8::from(differs << 4 == 0) + u8::from(differs >> 4 == 0),
                    };
                }
                same += u64::from(found);
            }
            same
        }
    }
    widest(Same::<BITS>(first, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_codes_are_counted() {
        let first: Vec<u8> = (0..=255).collect();
        let second: Vec<u8> =
            (0..=255).map(|byte| if byte % 4 == 0 { byte ^ 1 } else { byte }).collect();
        assert_eq!(same_elements::<8>(&first, &second), 192);
        assert_eq!(same_elements::<4>(&first, &second), 448);
    }

    #[test]
    fn groups_fold_to_what_their_numbers_come_to() {
        let values: Vec<f32> = (0..100).map(|n| ((n * 37 % 101) as f32 - 50.0) / 8.0).collect();
        for group in [1, 7, 16, 33, 100] {
            let plain = |start: f32, with: fn(f32, f32) -> f32| -> Vec<f32> {
                values.chunks(group).map(|g| g.iter().fold(start, |a, b| with(a, *b))).collect()
            };
            assert_eq!(
                fold_groups::<Largest>(0.0, &values, group),
                plain(0.0, |a, b| a.max(b.abs()))
            );
            assert_eq!(fold_groups::<Least>(0.0, &values, group), plain(0.0, f32::min));
            let most = fold_groups::<Greatest>(f32::NEG_INFINITY, &values, group);
            assert_eq!(most, plain(f32::NEG_INFINITY, f32::max));
        }
    }
}
