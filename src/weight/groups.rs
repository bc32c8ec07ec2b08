//! Values to codes by groups that share a step: the loop of all encodings, which becomes vectors.

use crate::math::kernel::loops::{Loop, widest};

use super::Panel;
use super::rounding::Draws;

/// How a value becomes a code. What it does is inlined into the loop.
pub(super) trait Round: Copy {
    /// What the values of a group share.
    type Step: Copy;

    /// The code of a value, which a draw from [0, 1) decides on if there is one, and the number that it is read as.
    fn round(self, value: f32, step: Self::Step, draw: Option<f32>) -> (u8, f32);
}

/// The codes of a panel; the numbers that they are read as follow those in `read`. `steps` are those of its groups of so
/// many columns, row after row.
pub(super) fn round<R: Round>(
    rule: R,
    panel: &Panel<'_>,
    (columns, group): (usize, usize),
    steps: &[R::Step],
    read: &mut Vec<f32>,
) -> Vec<u8> {
    round_some(rule, (panel.values, panel.draws(), 0), (columns, group), steps, read)
}

/// As [`round`], of values from number `first` of a panel on.
pub(super) fn round_some<R: Round>(
    rule: R,
    (values, draws, first): (&[f32], &Draws, usize),
    (columns, group): (usize, usize),
    steps: &[R::Step],
    read: &mut Vec<f32>,
) -> Vec<u8> {
    let (mut codes, before) = (vec![0; values.len()], read.len());
    read.resize(before + values.len(), 0.0);
    let numbers = read.get_mut(before..).unwrap_or_default();
    let size = (columns.max(1), group.max(1));
    widest(Rounded { rule, values, draws, first, size, steps, codes: &mut codes, numbers });
    codes
}

struct Rounded<'a, R: Round> {
    rule: R,
    values: &'a [f32],
    draws: &'a Draws,
    first: usize,
    /// Columns, and those of a group.
    size: (usize, usize),
    steps: &'a [R::Step],
    codes: &'a mut [u8],
    numbers: &'a mut [f32],
}

impl<R: Round> Loop for Rounded<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let draws = self.draws;
        if draws.is_empty() { self.each(|_| None) } else { self.each(|at| draws.get(at)) }
    }
}

impl<R: Round> Rounded<'_, R> {
    #[inline(always)]
    fn each(self, draw: impl Fn(usize) -> Option<f32>) {
        let (columns, group) = self.size;
        let mut at = self.first;
        let rows = self.values.chunks(columns).zip(self.steps.chunks(columns.div_ceil(group)));
        let results = self.codes.chunks_mut(columns).zip(self.numbers.chunks_mut(columns));
        for ((values, steps), (codes, numbers)) in rows.zip(results) {
            let groups = values.chunks(group).zip(steps);
            let results = codes.chunks_mut(group).zip(numbers.chunks_mut(group));
            for ((values, step), (codes, numbers)) in groups.zip(results) {
                let slots = codes.iter_mut().zip(numbers);
                for (within, (value, (code, number))) in values.iter().zip(slots).enumerate() {
                    (*code, *number) = self.rule.round(*value, *step, draw(at + within));
                }
                at += values.len();
            }
        }
    }
}

/// Codes of four bits, two a byte: the first in the low nibble, or in the high one. A last one alone is followed by
/// `last`.
pub(super) fn nibbles(codes: &[u8], high_first: bool, last: u8) -> Vec<u8> {
    struct Pairs<'a>(&'a [[u8; 2]], bool, &'a mut [u8]);
    impl Loop for Pairs<'_> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let pairs = self.0.iter().zip(self.2);
            if self.1 {
                pairs.for_each(|([high, low], byte)| *byte = high << 4 | low);
            } else {
                pairs.for_each(|([low, high], byte)| *byte = high << 4 | low);
            }
        }
    }
    let (pairs, single) = codes.as_chunks::<2>();
    let mut bytes = vec![0; codes.len().div_ceil(2)];
    widest(Pairs(pairs, high_first, &mut bytes));
    if let (Some(code), Some(byte)) = (single.first(), bytes.last_mut()) {
        *byte = if high_first { code << 4 | last } else { last << 4 | code };
    }
    bytes
}

/// Rows of codes in words of 32 bits, the first lowest, each `middle` more than the whole number it stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) bits: usize,
    pub(super) middle: f32,
}

impl Words<'_> {
    /// Their numbers, (code − zero point) · scale, by the scale and zero point of each group of so many columns, row
    /// after row.
    pub(super) fn read(
        self,
        (columns, group): (usize, usize),
        steps: &[(f32, f32)],
        out: &mut [f32],
    ) {
        widest(Read { words: self, size: (columns.max(1), group.max(1)), steps, out });
    }

    /// The codes of a row.
    #[inline(always)]
    fn widen(self, bytes: &[u8], values: &mut [f32]) {
        if self.bits == 4 {
            let (pairs, last) = values.as_chunks_mut::<2>();
            for (pair, byte) in pairs.iter_mut().zip(bytes) {
                *pair = [f32::from(byte & 15), f32::from(byte >> 4)];
            }
            if let (Some(value), Some(byte)) = (last.first_mut(), bytes.get(pairs.len())) {
                *value = f32::from(byte & 15);
            }
            return;
        }
        let (mask, words) = ((1u32 << self.bits) - 1, bytes.as_chunks::<4>().0);
        for (word, values) in words.iter().zip(values.chunks_mut(32 / self.bits)) {
            let word = u32::from_le_bytes(*word);
            for (at, value) in values.iter_mut().enumerate() {
                *value = (word >> (at * self.bits) & mask) as f32;
            }
        }
    }
}

struct Read<'a> {
    words: Words<'a>,
    size: (usize, usize),
    steps: &'a [(f32, f32)],
    out: &'a mut [f32],
}

impl Loop for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (columns, group) = self.size;
        let stride = columns.div_ceil(32 / self.words.bits) * 4;
        let rows = self.words.bytes.chunks(stride).zip(self.out.chunks_mut(columns));
        for ((bytes, values), steps) in rows.zip(self.steps.chunks(columns.div_ceil(group))) {
            self.words.widen(bytes, values);
            for (values, (scale, zero)) in values.chunks_mut(group).zip(steps) {
                for value in values {
                    *value = ((*value - self.words.middle) - zero) * scale;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_lie_as_they_are_asked_for() {
        assert_eq!(nibbles(&[1, 2, 3], false, 9), [0x21, 0x93]);
        assert_eq!(nibbles(&[1, 2, 3, 4], true, 0), [0x12, 0x34]);
        assert_eq!(nibbles(&[7], true, 9), [0x79]);
    }
}
