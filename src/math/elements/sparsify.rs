//! Which elements of a row a method keeps; the others become 0.

use super::random::{Stream, threshold};
use super::select::Cut;
use crate::math::kernel::lanes::{Lanes, Task};
use crate::math::kernel::vectors::dispatch;

/// A rule for one matrix, applied to whole rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sparsifier {
    /// Keeps everything.
    All,
    /// Keeps the largest.
    Largest(Cut),
    /// Keeps magnitudes above this one.
    Above(f32),
    /// Drops the largest, and of the rest keeps what is among the `within` largest of all.
    Between {
        /// What is dropped above.
        above: Cut,
        /// What is kept above.
        within: Cut,
    },
    /// Keeps each with a chance, multiplied by 1/chance if that is to be made up for.
    Chance {
        /// In (0, 1].
        chance: f64,
        /// Whether what is kept makes up for what is not.
        rescale: bool,
        /// Where the random numbers are from.
        stream: Stream,
    },
    /// The same, the chance growing evenly with the rank of the magnitude in its row, from `chance −
    /// spread` to `chance + spread` (DELLA's MAGPRUNE, Deep et al. 2024, <https://arxiv.org/abs/2406.11617>).
    RankedChance {
        /// In the middle.
        chance: f64,
        /// To either side.
        spread: f64,
        /// Whether what is kept makes up for what is not.
        rescale: bool,
        /// Where the random numbers are from.
        stream: Stream,
    },
}

impl Sparsifier {
    /// Applies the rule to some whole rows, from row number `first` on.
    ///
    /// # Panics
    /// If `values` are not whole rows.
    #[track_caller]
    pub fn apply(&self, first: usize, columns: usize, values: &mut [f32]) {
        assert!(values.len().is_multiple_of(columns.max(1)), "whole rows");
        if *self != Self::All {
            dispatch(Apply { rule: *self, first, columns, values });
        }
    }
}

struct Apply<'a> {
    rule: Sparsifier,
    first: usize,
    columns: usize,
    values: &'a mut [f32],
}

impl Task for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let mut numbers = Vec::new();
        for (row, values) in self.values.chunks_mut(self.columns.max(1)).enumerate() {
            let row = self.first + row;
            let at = row as u64 * self.columns as u64;
            match self.rule {
                Sparsifier::All => {}
                Sparsifier::Largest(cut) => cut.keep_largest(row, values),
                Sparsifier::Above(least) => {
                    for value in values {
                        *value = if value.abs() > least { *value } else { 0.0 };
                    }
                }
                Sparsifier::Between { above, within } => {
                    within.keep_largest(row, values);
                    above.drop_largest(row, values);
                }
                Sparsifier::Chance { chance, rescale, stream } => {
                    numbers.resize(values.len(), 0);
                    stream.fill(at, &mut numbers);
                    // Compared in 32 bits, as vectors have them: the largest number that keeps.
                    let limit = threshold(chance);
                    let last = limit.saturating_sub(1) as u32;
                    let gain = if rescale { (1.0 / chance) as f32 } else { 1.0 };
                    for (value, number) in values.iter_mut().zip(&numbers) {
                        let is_kept = limit > 0 && *number <= last;
                        *value = if is_kept { *value * gain } else { 0.0 };
                    }
                }
                Sparsifier::RankedChance { chance, spread, rescale, stream } => {
                    numbers.resize(values.len(), 0);
                    stream.fill(at, &mut numbers);
                    by_rank(values, &numbers, (chance, spread), rescale);
                }
            }
        }
    }
}

/// Keeps by chances that grow with the rank of the magnitude; of equal ones, the first has the lowest.
fn by_rank(values: &mut [f32], numbers: &[u32], (chance, spread): (f64, f64), rescale: bool) {
    let magnitude = |value: &f32| u64::from(value.to_bits() & 0x7fff_ffff);
    let keyed = values.iter().enumerate().map(|(at, value)| magnitude(value) << 32 | at as u64);
    let mut order: Vec<u64> = keyed.collect();
    order.sort_unstable();
    let last = values.len().saturating_sub(1);
    for (rank, key) in order.into_iter().enumerate() {
        let at = (key & 0xffff_ffff) as usize;
        // One element alone has no rank; it has the chance of the middle.
        let share = if last == 0 { 0.5 } else { rank as f64 / last as f64 };
        let chance_of_rank = (chance - spread + 2.0 * spread * share).clamp(0.0, 1.0);
        let is_kept = u64::from(numbers[at]) < threshold(chance_of_rank);
        let gain = if rescale { (1.0 / chance_of_rank) as f32 } else { 1.0 };
        values[at] = if is_kept { values[at] * gain } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_hold_and_keep_the_mean() {
        let stream = Stream::new(3, "x", 0);
        let (rows, columns) = (100, 200);
        let ranked = Sparsifier::RankedChance { chance: 0.4, spread: 0.2, rescale: true, stream };
        for rule in [Sparsifier::Chance { chance: 0.4, rescale: true, stream }, ranked] {
            let mut values: Vec<f32> =
                (0..rows * columns).map(|at| (at % columns) as f32).collect();
            let whole: f32 = values.iter().sum();
            rule.apply(0, columns, &mut values);
            let left = values.iter().filter(|value| **value != 0.0).count() as f64;
            assert!((left / (rows * columns) as f64 - 0.4).abs() < 0.01, "{rule:?}");
            assert!((values.iter().sum::<f32>() / whole - 1.0).abs() < 0.03, "{rule:?}");
        }
    }

    #[test]
    fn any_cut_into_rows_keeps_the_same() {
        let stream = Stream::new(3, "x", 0);
        let make = || -> Vec<f32> { (0..70).map(|at| (at as f32 * 1.7).sin()).collect() };
        for rule in [
            Sparsifier::Chance { chance: 0.5, rescale: false, stream },
            Sparsifier::RankedChance { chance: 0.5, spread: 0.1, rescale: true, stream },
        ] {
            let mut all = make();
            rule.apply(0, 7, &mut all);
            let mut parts = make();
            for (row, part) in parts.chunks_mut(21).enumerate() {
                rule.apply(row * 3, 7, part);
            }
            assert_eq!(all, parts);
        }
    }

    #[test]
    fn a_column_of_one_has_the_chance_of_the_middle() {
        let stream = Stream::new(0, "", 0);
        let mut values = vec![1.0; 1000];
        Sparsifier::RankedChance { chance: 0.5, spread: 0.4, rescale: false, stream }.apply(
            0,
            1,
            &mut values,
        );
        let sum: f32 = values.iter().sum();
        assert!((sum - 500.0).abs() < 60.0, "{sum}");
    }
}
