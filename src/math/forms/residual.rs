//! A stored tensor told by another one: a low-rank guess of the difference, and how many steps each
//! element is off.
//!
//! Merging rounds W + Δ. Taking a good guess of Δ off again and rounding gives W back wherever the
//! exponent did not change, so the steps that remain are mostly 0. The guess is a pair of small factors
//! kept as 16-bit integers; its product is made by plain loops whose order of sums never changes, so
//! that every machine makes the same.

use crate::math::kernel::element::ElementType;
use crate::math::linalg::low_rank::LowRank;

/// Quantised factors: value · scale, row by row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Guess {
    /// Rows × rank.
    pub left: Vec<i16>,
    /// Rank × columns.
    pub right: Vec<i16>,
    /// What left · right of each level is multiplied by.
    pub scales: Vec<f64>,
}

impl Guess {
    /// Rounds factors of rows × rank and rank × columns.
    pub fn new(factors: &LowRank) -> Self {
        let rank = factors.rank();
        let mut guess = Self {
            left: vec![0; factors.rows() * rank],
            right: vec![0; factors.columns() * rank],
            scales: vec![0.0; rank],
        };
        let limit = f64::from(i16::MAX);
        for level in 0..rank {
            let (up, down) = (factors.up.column(level), factors.down.row(level));
            let (a, b) = (up.amax() / limit, down.amax() / limit);
            if a == 0.0 || b == 0.0 {
                continue;
            }
            guess.scales[level] = a * b;
            for (row, value) in up.iter().enumerate() {
                guess.left[row * rank + level] = (value / a).round() as i16;
            }
            for (column, value) in down.iter().enumerate() {
                guess.right[level * factors.columns() + column] = (value / b).round() as i16;
            }
        }
        guess
    }

    /// values −= rows `first`.. of the guess, for values of whole rows of `columns`.
    pub fn subtract(&self, first: usize, columns: usize, values: &mut [f64]) {
        let rank = self.scales.len();
        if rank == 0 {
            return;
        }
        for (at, row) in values.chunks_mut(columns.max(1)).enumerate() {
            let lefts = self.left.iter().skip((first + at) * rank).take(rank);
            for (level, (left, scale)) in lefts.zip(&self.scales).enumerate() {
                let factor = f64::from(*left) * scale;
                let right = &self.right[level * columns..][..columns];
                for (value, right) in row.iter_mut().zip(right) {
                    *value -= factor * f64::from(*right);
                }
            }
        }
    }
}

/// The bits of a stored element as an integer that grows with the number.
fn place(bits: u64, width: u32) -> i64 {
    let sign = 1u64 << (width - 1);
    let magnitude = (bits & (sign - 1)).cast_signed();
    // −0 comes just below +0.
    if bits & sign == 0 { magnitude } else { -magnitude - 1 }
}

fn bits(place: i64, width: u32) -> u64 {
    let sign = 1u64 << (width - 1);
    if place >= 0 { place as u64 & (sign - 1) } else { sign | ((-(place + 1)) as u64 & (sign - 1)) }
}

fn read(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The steps from each element of `guess` to that of `truth`, both of one type.
pub fn steps<'a>(
    element: ElementType,
    truth: &'a [u8],
    guess: &'a [u8],
) -> impl Iterator<Item = i64> + 'a {
    let (size, width) = (element.size(), element.size() as u32 * 8);
    truth.chunks_exact(size).zip(guess.chunks_exact(size)).map(move |(truth, guess)| {
        place(read(truth), width).wrapping_sub(place(read(guess), width))
    })
}

/// Moves an element so many steps.
pub fn step(element: ElementType, bytes: &mut [u8], steps: i64) {
    let width = element.size() as u32 * 8;
    let moved = bits(place(read(bytes), width).wrapping_add(steps), width);
    bytes.copy_from_slice(&moved.to_le_bytes()[..element.size()]);
}

/// How much finer the places of `finer` are than those of `coarser`: the difference of their binary
/// exponents and one, held within 0 and 15. The larger, the larger the steps.
pub fn fineness(coarser: f64, finer: f64) -> usize {
    let exponent = |value: f64| (value.to_bits() >> 52 & 0x7ff).cast_signed();
    (exponent(coarser) - exponent(finer) + 1).clamp(0, 15) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn steps_lead_from_anything_to_anything(a: u64, b: u64) {
            for element in [ElementType::Bf16, ElementType::F16, ElementType::F32, ElementType::F64] {
                let size = element.size();
                let (truth, mut guess) = (a.to_le_bytes(), b.to_le_bytes());
                let off: Vec<i64> = steps(element, &truth[..size], &guess[..size]).collect();
                step(element, &mut guess[..size], off[0]);
                prop_assert_eq!(&truth[..size], &guess[..size]);
            }
        }
    }

    #[test]
    fn neighbours_are_one_step_apart() {
        let bytes = |value: f32| value.to_le_bytes();
        let step =
            |a: f32, b: f32| steps(ElementType::F32, &bytes(a), &bytes(b)).next().unwrap_or(0);
        assert_eq!(step(1.0f32.next_up(), 1.0), 1);
        assert_eq!(step(-1.0f32, (-1.0f32).next_up()), -1);
        assert_eq!(step(0.0, -0.0), 1);
    }
}
