//! How numbers become codes: to the nearest, or at random with the chances that make the mean exact. What an update
//! adds is then kept on average even where it is smaller than a step (Gupta and others 2015, "Deep learning with
//! limited numerical precision").

use serde::{Deserialize, Serialize};

use crate::math::elements::random::Stream;

/// Where the scales of a weight that is written again come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scales {
    /// From the new values, as the scheme's reference writer makes them.
    #[default]
    Fresh,
    /// From the stored weight: only codes change.
    Reuse,
}

/// How a number between two codes becomes one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// As the scheme's reference writer rounds.
    #[default]
    Nearest,
    /// Up or down at random, each with the chance that keeps the mean. The same seed gives the same codes.
    Stochastic {
        /// Of the random numbers; each element of each tensor has its own.
        seed: u64,
    },
}

/// How a weight is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Writing {
    /// Where scales come from.
    pub scales: Scales,
    /// How codes are rounded.
    pub rounding: Rounding,
}

/// The random numbers of a panel's elements; none where rounding is to the nearest.
#[derive(Debug)]
pub(super) struct Draws(Vec<u32>);

impl Draws {
    /// Those of `count` elements of a weight, from `first` on.
    pub(super) fn new(rounding: Rounding, name: &str, first: usize, count: usize) -> Self {
        let Rounding::Stochastic { seed } = rounding else { return Self(Vec::new()) };
        let mut bits = vec![0; count];
        Stream::new(seed, name, 0).fill(first as u64, &mut bits);
        Self(bits)
    }

    /// Whether rounding is to the nearest.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// That of an element of the panel, in [0, 1).
    #[inline(always)]
    pub(super) fn get(&self, at: usize) -> Option<f32> {
        self.0.get(at).map(|bits| (bits >> 8) as f32 / (1u32 << 24) as f32)
    }
}

/// A whole number: the nearest, ties to even, or the one that a draw decides on.
#[inline(always)]
pub(super) fn whole(value: f32, draw: Option<f32>) -> f32 {
    match draw {
        None => value.round_ties_even(),
        Some(draw) => {
            let below = value.floor();
            if upper(below, below + 1.0, value, draw) { below + 1.0 } else { below }
        }
    }
}

/// The lowest byte of a whole number between −2²¹ and 2²¹.
#[inline(always)]
pub(super) fn low_byte(value: f32) -> u8 {
    // Added to 3 · 2²² it is what the last bits of the sum say.
    (value + 12_582_912.0).to_bits() as u8
}

/// Whether a value between two numbers becomes the upper one.
#[inline(always)]
pub(super) fn upper(below: f32, above: f32, value: f32, draw: f32) -> bool {
    draw * (above - below) < value - below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_rounding_keeps_the_mean_and_never_leaves_the_neighbours() {
        let draws = Draws::new(Rounding::Stochastic { seed: 3 }, "x", 0, 20_000);
        for value in [0.3_f32, -0.3, 2.75, -7.1, 4.0] {
            let rounded: Vec<f32> = (0..20_000).map(|at| whole(value, draws.get(at))).collect();
            assert!(rounded.iter().all(|found| (found - value).abs() < 1.0), "{value}");
            let mean = rounded.iter().sum::<f32>() / 20_000.0;
            assert!((mean - value).abs() < 0.02, "{value}: {mean}");
        }
    }

    #[test]
    fn the_lowest_byte_is_that_of_the_integer() {
        for value in -70_000..70_000_i32 {
            assert_eq!(low_byte(value as f32), value as u8, "{value}");
        }
    }

    #[test]
    fn a_number_of_the_grid_stays() {
        let draws = Draws::new(Rounding::Stochastic { seed: 1 }, "x", 5, 100);
        assert!((0..100).all(|at| whole(-3.0, draws.get(at)) == -3.0));
        let nearest = Draws::new(Rounding::Nearest, "x", 5, 100);
        assert_eq!([0.5, 1.5, -0.5].map(|value| whole(value, nearest.get(0))), [0.0, 2.0, -0.0]);
    }

    #[test]
    fn an_element_has_its_own_number_whatever_the_panel() {
        let rounding = Rounding::Stochastic { seed: 9 };
        let whole = Draws::new(rounding, "w", 0, 64);
        let part = Draws::new(rounding, "w", 37, 20);
        assert!((0..20).all(|at| part.get(at) == whole.get(37 + at)));
    }
}
