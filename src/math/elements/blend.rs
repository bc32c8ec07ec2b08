//! Several slices of elements into one: weighted sums, means of what is not 0, and TIES' election of signs.
//!
//! Elements are independent, so the result does not depend on how they are cut into slices.

use crate::math::kernel::lanes::{Lanes, Task};
use crate::math::kernel::vectors::dispatch;

/// Elements that are blended together, so that what they need stays in registers and near cache.
const STEP: usize = 64;

/// Who wins an election of signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Majority {
    /// The sign of the sum of all votes.
    Total,
    /// The sign that more have.
    Frequency,
}

/// How elements of one place are elected and averaged; one number an input in each list.
///
/// With x the input's element and s the elected sign, those with sign(vote · x) = s agree, and the
/// result is Σ gain · x over them, divided by Σ share over them if it is a mean; where that is 0,
/// by 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Election {
    /// What an input's element is multiplied by to vote.
    pub vote: Vec<f32>,
    /// What it is multiplied by in the sum.
    pub gain: Vec<f32>,
    /// What it counts in the divisor.
    pub share: Vec<f32>,
    /// Who wins.
    pub majority: Majority,
    /// Whether votes that cancel elect plus; nobody otherwise.
    pub plus_on_tie: bool,
    /// Whether the sum is divided.
    pub mean: bool,
    /// The least, if not 0, that it is divided by.
    pub least: f32,
}

/// out = Σ gainᵢ · partᵢ.
///
/// # Panics
/// If the lengths differ.
#[track_caller]
pub fn sum(parts: &[&[f32]], gains: &[f32], out: &mut [f32]) {
    assert_eq!(parts.len(), gains.len(), "a gain an input");
    assert!(parts.iter().all(|part| part.len() == out.len()), "elements of every input");
    dispatch(Sum { parts, gains, out });
}

/// out = what an election makes of the parts.
///
/// # Panics
/// If the lengths differ.
#[track_caller]
pub fn elect(parts: &[&[f32]], election: &Election, out: &mut [f32]) {
    for list in [&election.vote, &election.gain, &election.share] {
        assert_eq!(parts.len(), list.len(), "a number an input");
    }
    assert!(parts.iter().all(|part| part.len() == out.len()), "elements of every input");
    dispatch(Elect { parts, election, out });
}

/// out = Σ gainᵢ · partᵢ / n over the n parts that are not 0 there; where there is one alone, times its `alone`.
///
/// # Panics
/// If the lengths differ.
#[track_caller]
pub fn share(parts: &[&[f32]], gains: &[f32], alone: &[f32], out: &mut [f32]) {
    assert_eq!((parts.len(), parts.len()), (gains.len(), alone.len()), "numbers of an input");
    assert!(parts.iter().all(|part| part.len() == out.len()), "elements of every input");
    dispatch(Share { parts, gains, alone, out });
}

struct Share<'a> {
    parts: &'a [&'a [f32]],
    gains: &'a [f32],
    alone: &'a [f32],
    out: &'a mut [f32],
}

impl Task for Share<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        for (step, out) in self.out.chunks_mut(STEP).enumerate() {
            let (mut sums, mut raised, mut counts) = ([0f32; STEP], [0f32; STEP], [0f32; STEP]);
            for ((part, gain), alone) in self.parts.iter().zip(self.gains).zip(self.alone) {
                let part = &part[step * STEP..][..out.len()];
                let places = sums.iter_mut().zip(&mut raised).zip(&mut counts);
                for (((sum, raised), count), value) in places.zip(part) {
                    *sum += gain * value;
                    *raised += alone * (gain * value);
                    *count += if *value == 0.0 { 0.0 } else { 1.0 };
                }
            }
            for (((out, sum), raised), count) in out.iter_mut().zip(sums).zip(raised).zip(counts) {
                *out = if count > 1.0 { sum / count } else { raised };
            }
        }
    }
}

struct Sum<'a> {
    parts: &'a [&'a [f32]],
    gains: &'a [f32],
    out: &'a mut [f32],
}

impl Task for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        for (step, out) in self.out.chunks_mut(STEP).enumerate() {
            let mut sums = [0f32; STEP];
            for (part, gain) in self.parts.iter().zip(self.gains) {
                let part = &part[step * STEP..][..out.len()];
                for (sum, value) in sums.iter_mut().zip(part) {
                    *sum += gain * value;
                }
            }
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

struct Elect<'a> {
    parts: &'a [&'a [f32]],
    election: &'a Election,
    out: &'a mut [f32],
}

impl Task for Elect<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Election { vote, gain, share, majority, plus_on_tie, mean, least } = self.election;
        let by_total = *majority == Majority::Total;
        let on_tie = if *plus_on_tie { 1.0 } else { 0.0 };
        for (step, out) in self.out.chunks_mut(STEP).enumerate() {
            // Padded with zeros, whose election nobody reads.
            let mut votes = [0f32; STEP];
            for (part, vote) in self.parts.iter().zip(vote) {
                let part = &part[step * STEP..][..out.len()];
                for (sum, value) in votes.iter_mut().zip(part) {
                    let cast = vote * value;
                    *sum += if by_total { cast } else { sign(cast) };
                }
            }
            let elected = votes.map(|votes| if votes == 0.0 { on_tie } else { sign(votes) });
            let (mut sums, mut divisors) = ([0f32; STEP], [0f32; STEP]);
            for (at, part) in self.parts.iter().enumerate() {
                let part = &part[step * STEP..][..out.len()];
                let (vote, gain, share) = (vote[at], gain[at], share[at]);
                let places = sums.iter_mut().zip(&mut divisors).zip(&elected);
                for (((sum, divisor), elected), value) in places.zip(part) {
                    let agrees = elected * (vote * value) > 0.0;
                    *sum += if agrees { gain * value } else { 0.0 };
                    *divisor += if agrees { share } else { 0.0 };
                }
            }
            for ((out, sum), divisor) in out.iter_mut().zip(sums).zip(divisors) {
                let divisor = if divisor.abs() < *least { *least } else { divisor };
                let divisor = if *mean && divisor != 0.0 { divisor } else { 1.0 };
                *out = sum / divisor;
            }
        }
    }
}

/// 1, −1, or 0 for 0.
#[inline(always)]
fn sign(value: f32) -> f32 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::kernel::vectors as kernel;

    fn ties(weights: &[f32]) -> Election {
        Election {
            vote: weights.to_vec(),
            gain: weights.to_vec(),
            share: weights.iter().map(|weight| weight.abs()).collect(),
            majority: Majority::Total,
            plus_on_tie: false,
            mean: true,
            least: 0.0,
        }
    }

    #[test]
    fn an_election_by_hand() {
        let (a, b) = ([3.0, -1.0, 0.0, 2.0, -4.0], [1.0, 2.0, 5.0, -2.0, 1.0]);
        let parts: [&[f32]; 2] = [&a, &b];
        let mut out = [9.0; 5];
        elect(&parts, &ties(&[1.0, 1.0]), &mut out);
        assert_eq!(out, [2.0, 2.0, 5.0, 0.0, -4.0]);
        let plus = Election { plus_on_tie: true, mean: false, ..ties(&[1.0, 1.0]) };
        elect(&parts, &plus, &mut out);
        assert_eq!(out, [4.0, 2.0, 5.0, 2.0, -4.0]);
        // By number, one against one is a draw; the weight decides nothing.
        elect(&parts, &Election { majority: Majority::Frequency, ..ties(&[1.0, 3.0]) }, &mut out);
        assert_eq!(out, [1.5, 0.0, 5.0, 0.0, 0.0]);
        elect(&parts, &ties(&[-1.0, 3.0]), &mut out);
        assert_eq!(out, [0.0, 7.0 / 4.0, 5.0, -2.0, 7.0 / 4.0]);
        sum(&parts, &[2.0, -1.0], &mut out);
        assert_eq!(out, [5.0, -4.0, -5.0, 6.0, -9.0]);
    }

    #[test]
    fn a_share_by_hand() {
        let (a, b) = ([3.0, 0.0, 0.0, 2.0], [1.0, 2.0, 0.0, -2.0]);
        let mut out = [9.0; 4];
        share(&[&a, &b], &[1.0, 2.0], &[1.5, 1.25], &mut out);
        assert_eq!(out, [2.5, 5.0, 0.0, -1.0]);
        share(&[&a], &[1.0], &[1.0], &mut out);
        assert_eq!(out, a);
    }

    struct Recorded<'a>(&'a [&'a [f32]], &'a Election);

    impl Task for Recorded<'_> {
        type Output = Vec<f32>;

        fn run<V: Lanes>(self) -> Vec<f32> {
            let mut out = vec![0.0; self.0[0].len()];
            Elect { parts: self.0, election: self.1, out: &mut out }.run::<V>();
            out
        }
    }

    #[test]
    fn all_instruction_sets_give_the_same_bits() {
        let make = |factor: f32| -> Vec<f32> {
            (0..1000).map(|at| ((at as f32 * factor).sin() * 10.0).round() / 7.0).collect()
        };
        let (a, b, c) = (make(1.1), make(0.7), make(2.3));
        let parts: [&[f32]; 3] = [&a, &b, &c];
        let election = ties(&[0.3, 1.0, -0.7]);
        let all = kernel::on_all(|| Recorded(&parts, &election));
        assert!(all.iter().all(|result| result == &all[0]));
    }
}
