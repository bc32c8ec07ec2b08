//! The k-th largest magnitude of a matrix that is never held: exact selection over row panels.
//!
//! Magnitudes of f32 are ordered as their bits are, so the k-th largest is found digit by digit: one
//! pass counts the upper 16 of the 31 bits, a second the lower 15 among those that share the upper
//! ones. Where more elements have just that magnitude than are wanted, the first ones in row-major order
//! are taken: they are counted row by row, in the second pass if the lower bits are 0, as in most
//! differences of 16-bit types, else in a third one. Counts are integers, so panels may come in any
//! order and from any number of threads.

use crate::math::kernel::lanes::{Lanes, Task};
use crate::math::kernel::vectors::dispatch;

/// Bits below those that the first pass counts.
const LOW: u32 = 15;
/// Counts of one digit in the first pass, taken in turn: neighbours often have the same digit, and an
/// addition that waits for the last one's store is slow.
const TURNS: usize = 2;
/// Elements whose digits are taken at once.
const GROUP: usize = 64;
/// All bits of a magnitude.
const MAGNITUDE: u32 = 0x7fff_ffff;

/// Where the elements kept end: all above a magnitude, and of those that have just it, the first ones
/// in row-major order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The magnitude, as bits.
    bits: u32,
    /// The first row that does not keep all elements of just that magnitude.
    row: usize,
    /// How many of them it keeps.
    in_row: usize,
}

impl Cut {
    /// Keeps everything.
    pub const ALL: Self = Self { bits: 0, row: usize::MAX, in_row: 0 };
    /// Keeps nothing.
    pub const NONE: Self = Self { bits: u32::MAX, row: 0, in_row: 0 };

    /// The least bits that row number `row` keeps, unless it is the one that keeps only some.
    fn limit(self, row: usize) -> u32 {
        if row < self.row { self.bits } else { self.bits.saturating_add(1) }
    }

    /// Writes 0 over all elements of row number `row` that are not kept.
    #[inline(always)]
    pub(super) fn keep_largest(self, row: usize, values: &mut [f32]) {
        if row == self.row {
            return self.keep_some(values, true);
        }
        let limit = self.limit(row);
        for value in values {
            let is_kept = value.to_bits() & MAGNITUDE >= limit;
            *value = if is_kept { *value } else { 0.0 };
        }
    }

    /// Writes 0 over all elements that [`Cut::keep_largest`] would keep.
    #[inline(always)]
    pub(super) fn drop_largest(self, row: usize, values: &mut [f32]) {
        if row == self.row {
            return self.keep_some(values, false);
        }
        let limit = self.limit(row);
        for value in values {
            let is_kept = value.to_bits() & MAGNITUDE < limit;
            *value = if is_kept { *value } else { 0.0 };
        }
    }

    /// The row that keeps only its first few elements of just that magnitude.
    fn keep_some(self, values: &mut [f32], largest: bool) {
        let mut left = self.in_row;
        for value in values {
            let bits = value.to_bits() & MAGNITUDE;
            let tie = bits == self.bits && left > 0;
            left -= usize::from(tie);
            if (bits > self.bits || tie) != largest {
                *value = 0.0;
            }
        }
    }
}

/// How many elements to select.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keep {
    /// So many.
    Count(u64),
    /// This share, in [0, 1], of those that are not 0, rounded down.
    ShareOfNonZero(f64),
}

/// What is still to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Upper,
    Lower { upper: u32, wanted: u64 },
    Rows { bits: u32, wanted: u64 },
    Done(Cut),
}

/// A selection under way.
#[derive(Debug, Clone)]
pub struct Selection {
    keep: Keep,
    stage: Stage,
}

/// What one thread has counted in one pass.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// By the digit of this pass; in the first one [`TURNS`] for each.
    counts: Vec<u32>,
    non_zero: u64,
    /// Elements of just the magnitude, or of the one whose lower bits are 0, by row.
    rows: Vec<u32>,
}

impl Tally {
    fn add_to_row(&mut self, row: usize, count: u32) {
        let rows = self.rows.len().max(row + 1);
        self.rows.resize(rows, 0);
        self.rows[row] += count;
    }

    /// Adds another thread's counts of the same pass.
    ///
    /// # Panics
    /// If it is of another pass.
    #[track_caller]
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.counts.len(), other.counts.len(), "tallies of one pass");
        let longest = self.rows.len().max(other.rows.len());
        self.rows.resize(longest, 0);
        self.non_zero += other.non_zero;
        let pairs = self.counts.iter_mut().zip(&other.counts);
        for (count, more) in pairs.chain(self.rows.iter_mut().zip(&other.rows)) {
            *count += more;
        }
    }
}

impl Selection {
    /// Of the `keep` largest of so many elements, at most 2³² of them.
    pub fn new(keep: Keep, elements: u64) -> Self {
        let stage = match keep {
            Keep::Count(count) if count >= elements => Stage::Done(Cut::ALL),
            Keep::Count(0) => Stage::Done(Cut::NONE),
            Keep::Count(_) | Keep::ShareOfNonZero(_) => Stage::Upper,
        };
        Self { keep, stage }
    }

    /// The cut, once no pass is left to do.
    pub fn cut(&self) -> Option<Cut> {
        match self.stage {
            Stage::Done(cut) => Some(cut),
            _ => None,
        }
    }

    /// An empty count for the pass that is next.
    pub fn tally(&self) -> Tally {
        let digits = match self.stage {
            Stage::Upper => TURNS << 16,
            Stage::Lower { .. } => 1 << LOW,
            Stage::Rows { .. } | Stage::Done(_) => 0,
        };
        Tally { counts: vec![0; digits], ..Tally::default() }
    }

    /// Counts one row.
    ///
    /// # Panics
    /// If the tally is of another pass.
    #[track_caller]
    pub fn count(&self, tally: &mut Tally, row: usize, values: &[f32]) {
        if !matches!(self.stage, Stage::Done(_)) {
            dispatch(Count { selection: self, tally, row, values });
        }
    }

    /// Ends a pass over all elements, with the counts of all threads.
    pub fn finish_pass(&mut self, tally: &Tally) {
        self.stage = match self.stage {
            Stage::Upper => {
                let wanted = match self.keep {
                    Keep::Count(count) => count,
                    Keep::ShareOfNonZero(share) => (share * tally.non_zero as f64).floor() as u64,
                };
                if wanted == 0 {
                    Stage::Done(Cut::NONE)
                } else {
                    let digits = tally.counts.chunks(TURNS).map(|turns| turns.iter().sum());
                    let (upper, wanted, _) = find(&digits.collect::<Vec<u32>>(), wanted);
                    Stage::Lower { upper, wanted }
                }
            }
            Stage::Lower { upper, wanted } => {
                let (lower, wanted, here) = find(&tally.counts, wanted);
                let bits = upper << LOW | lower;
                // Zeros are the same whether they are kept or not.
                if bits == 0 || wanted == here {
                    Stage::Done(Cut { bits, row: usize::MAX, in_row: 0 })
                } else if lower == 0 {
                    Stage::Done(by_row(bits, wanted, &tally.rows))
                } else {
                    Stage::Rows { bits, wanted }
                }
            }
            Stage::Rows { bits, wanted } => Stage::Done(by_row(bits, wanted, &tally.rows)),
            done @ Stage::Done(_) => done,
        };
    }
}

/// Counts one row in the pass that is under way.
struct Count<'a> {
    selection: &'a Selection,
    tally: &'a mut Tally,
    row: usize,
    values: &'a [f32],
}

impl Task for Count<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { selection, tally, row, values } = self;
        match selection.stage {
            Stage::Upper => {
                count_upper(&mut tally.counts, values);
                if matches!(selection.keep, Keep::ShareOfNonZero(_)) {
                    tally.non_zero += values.len() as u64 - u64::from(count_bits(values, 0));
                }
            }
            Stage::Lower { upper, .. } => {
                let round = count_bits(values, upper << LOW);
                tally.add_to_row(row, round);
                tally.counts[0] += round;
                count_lower(&mut tally.counts, values, upper);
            }
            Stage::Rows { bits, .. } => tally.add_to_row(row, count_bits(values, bits)),
            Stage::Done(_) => {}
        }
    }
}

#[inline(always)]
fn count_upper(counts: &mut [u32], values: &[f32]) {
    let counts = counts.as_chunks_mut::<TURNS>().0;
    for group in values.chunks(GROUP) {
        let mut digits = [0u16; GROUP];
        for (digit, value) in digits.iter_mut().zip(group) {
            *digit = ((value.to_bits() & MAGNITUDE) >> LOW) as u16;
        }
        for turns in digits[..group.len()].chunks(TURNS) {
            for (turn, digit) in turns.iter().enumerate() {
                counts[usize::from(*digit)][turn] += 1;
            }
        }
    }
}

/// Counts the lower bits of those that share the upper ones, but for 0. They are few, and whole groups
/// are passed over.
#[inline(always)]
fn count_lower(counts: &mut [u32], values: &[f32], upper: u32) {
    // Between the one whose lower bits are 0 and the next upper digit.
    let hit = |value: &f32| {
        let lower = (value.to_bits() & MAGNITUDE).wrapping_sub(upper << LOW);
        lower.wrapping_sub(1) < (1 << LOW) - 1
    };
    for group in values.chunks(GROUP) {
        if group.iter().fold(false, |any, value| any | hit(value)) {
            for value in group.iter().filter(|value| hit(value)) {
                counts[(value.to_bits() & ((1 << LOW) - 1)) as usize] += 1;
            }
        }
    }
}

/// How many have just this magnitude.
#[inline(always)]
fn count_bits(values: &[f32], bits: u32) -> u32 {
    values.iter().map(|value| u32::from(value.to_bits() & MAGNITUDE == bits)).sum()
}

/// The cut that keeps `wanted` elements of just a magnitude, of which every row has so many.
fn by_row(bits: u32, mut wanted: u64, rows: &[u32]) -> Cut {
    let mut row = 0;
    for count in rows {
        if u64::from(*count) > wanted {
            break;
        }
        wanted -= u64::from(*count);
        row += 1;
    }
    Cut { bits, row, in_row: wanted as usize }
}

/// The digit at which the count from above reaches `wanted`, what is wanted of it, and how many it has.
fn find(counts: &[u32], mut wanted: u64) -> (u32, u64, u64) {
    for (digit, count) in counts.iter().enumerate().rev() {
        let count = u64::from(*count);
        if count >= wanted {
            return (digit as u32, wanted, count);
        }
        wanted -= count;
    }
    (0, 0, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Selects from rows of `columns`, in two interleaved tallies.
    fn select(keep: Keep, columns: usize, values: &[f32]) -> Cut {
        let mut selection = Selection::new(keep, values.len() as u64);
        let mut passes = 0;
        while selection.cut().is_none() {
            let mut tallies = [selection.tally(), selection.tally()];
            for (row, values) in values.chunks(columns).enumerate().rev() {
                selection.count(&mut tallies[row % 2], row, values);
            }
            let [mut tally, second] = tallies;
            tally.add(&second);
            selection.finish_pass(&tally);
            passes += 1;
            assert!(passes <= 3);
        }
        selection.cut().unwrap_or(Cut::NONE)
    }

    proptest! {
        #[test]
        fn agrees_with_a_stable_sort(
            codes in proptest::collection::vec(-9i8..9, 1..200), columns in 1usize..20, keep in 0usize..220,
            fine: bool,
        ) {
            let scale = |at: usize| if fine { 1.0 + at as f32 * 1e-6 } else { 1.0 };
            let values: Vec<f32> =
                codes.iter().enumerate().map(|(at, code)| f32::from(*code) * scale(at)).collect();
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()));
            let mut expected = vec![0.0; values.len()];
            for at in order.iter().take(keep) {
                expected[*at] = values[*at];
            }
            let cut = select(Keep::Count(keep as u64), columns, &values);
            let mut largest = values.clone();
            let mut rest = values.clone();
            for (row, (largest, rest)) in largest.chunks_mut(columns).zip(rest.chunks_mut(columns)).enumerate() {
                cut.keep_largest(row, largest);
                cut.drop_largest(row, rest);
            }
            prop_assert_eq!(&largest, &expected);
            for ((largest, rest), value) in largest.iter().zip(&rest).zip(&values) {
                prop_assert_eq!(largest + rest, *value);
            }
        }
    }

    #[test]
    fn a_share_is_of_those_that_are_not_zero() {
        let values = [0.0, 3.0, 0.0, -1.0, 2.0, 0.0, -4.0, 0.0];
        let cut = select(Keep::ShareOfNonZero(0.5), 4, &values);
        let mut largest = values;
        for (row, largest) in largest.chunks_mut(4).enumerate() {
            cut.keep_largest(row, largest);
        }
        assert_eq!(largest, [0.0, 3.0, 0.0, 0.0, 0.0, 0.0, -4.0, 0.0]);
        assert_eq!(select(Keep::ShareOfNonZero(0.5), 2, &[0.0; 4]), Cut::NONE);
    }
}
