//! What a method is given and gives back.

use super::compat::Compat;
use super::settings::Settings;
use crate::math::{LowRank, Matrix};

/// One input of a combination: weight · scale · up · down.
#[derive(Debug, Clone)]
pub struct Weighted {
    /// The factors as they are stored.
    pub factors: LowRank,
    /// What the adapter multiplies them by.
    pub scale: f64,
    /// What the user multiplies that by.
    pub weight: f64,
    /// Which of all adapters it is of.
    pub adapter: usize,
}

impl Weighted {
    /// Weight · scale.
    pub fn coefficient(&self) -> f64 {
        self.weight * self.scale
    }

    /// The weighted delta, √|c| on each side and the sign on `down`.
    pub fn delta(&self) -> LowRank {
        self.times(self.coefficient())
    }

    /// `coefficient` · up · down, √|c| on each side and the sign on `down`.
    pub(super) fn times(&self, coefficient: f64) -> LowRank {
        let share = coefficient.abs().sqrt();
        LowRank::new(&self.factors.up * share, &self.factors.down * (share * coefficient.signum()))
    }
}

/// scale · up · down.
#[derive(Debug, Clone)]
pub struct Combined {
    /// The factors.
    pub factors: LowRank,
    /// What they are multiplied by.
    pub scale: f64,
}

/// One module to combine: inputs of rows × columns, at least one.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// What takes part, in the adapters' order.
    pub inputs: &'a [Weighted],
    /// The weights of all adapters; those without a part here count as 0 deltas.
    pub weights: &'a [f64],
    /// The method's parameters.
    pub settings: &'a Settings,
    /// A peer to reproduce.
    pub compat: Option<Compat>,
    /// The rank that the result will be cut to, if that is known.
    pub rank: Option<usize>,
}

impl Problem<'_> {
    /// The weighted deltas.
    pub fn deltas(&self) -> Vec<LowRank> {
        self.inputs.iter().map(Weighted::delta).collect()
    }

    /// Inner products of the weighted deltas.
    pub fn gram(&self) -> Matrix {
        let deltas = self.deltas();
        let mut gram = Matrix::zeros(deltas.len(), deltas.len());
        for (row, a) in deltas.iter().enumerate() {
            for (column, b) in deltas.iter().enumerate().skip(row) {
                let inner = a.inner(b);
                (gram[(row, column)], gram[(column, row)]) = (inner, inner);
            }
        }
        gram
    }

    /// The weighted deltas, each times a coefficient, in one sum.
    pub(super) fn sum_of(&self, coefficients: &[f64]) -> Combined {
        let parts = self.inputs.iter().zip(coefficients);
        let parts: Vec<_> =
            parts.map(|(input, c)| (&input.factors, input.coefficient() * c)).collect();
        Combined { factors: LowRank::weighted_sum(self.rows, self.columns, &parts), scale: 1.0 }
    }

    /// The weighted deltas in one sum.
    pub(super) fn sum(&self) -> LowRank {
        self.sum_of(&vec![1.0; self.inputs.len()]).factors
    }
}

/// Why a method cannot combine these inputs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// It adds factors, so they must have one rank.
    #[error(
        "this method adds factors to factors, which takes equal ranks; these are {first} and {second}"
    )]
    RanksDiffer {
        /// One input's rank.
        first: usize,
        /// Another's.
        second: usize,
    },
    /// It takes roots of scales.
    #[error("this method takes the root of every scale, so they must be above 0; one is {scale}")]
    ScaleNotPositive {
        /// The scale.
        scale: f64,
    },
    /// It takes so many adapters.
    #[error("`{method}` is between two adapters; there are {adapters}")]
    NotTwo {
        /// The method.
        method: &'static str,
        /// The adapters given.
        adapters: usize,
    },
    /// The chance of being kept would leave [0, 1].
    #[error("a density of {density} leaves no room for an epsilon of {epsilon} on both sides")]
    NoRoom {
        /// The density.
        density: f64,
        /// The epsilon.
        epsilon: f64,
    },
}

/// What is known of a module's inputs before their factors are read.
#[derive(Debug, Clone, Copy)]
pub struct Sketch<'a> {
    /// (rank, scale) of each.
    pub inputs: &'a [(usize, f64)],
    /// How many adapters there are.
    pub adapters: usize,
    /// The method's parameters.
    pub settings: &'a Settings,
}

/// Says why a method does not take some inputs, if it does not.
pub type Check = fn(&Sketch) -> Result<(), Refusal>;

/// Takes all inputs.
pub(super) fn anything(_sketch: &Sketch) -> Result<(), Refusal> {
    Ok(())
}

/// Takes inputs of one rank.
pub(super) fn equal_ranks(sketch: &Sketch) -> Result<(), Refusal> {
    let first = sketch.inputs.first().map_or(0, |(rank, _)| *rank);
    match sketch.inputs.iter().find(|(rank, _)| *rank != first) {
        Some((second, _)) => Err(Refusal::RanksDiffer { first, second: *second }),
        None => Ok(()),
    }
}

/// Takes inputs with scales above 0.
pub(super) fn positive_scales(sketch: &Sketch) -> Result<(), Refusal> {
    match sketch.inputs.iter().find(|(_, scale)| *scale <= 0.0) {
        Some((_, scale)) => Err(Refusal::ScaleNotPositive { scale: *scale }),
        None => Ok(()),
    }
}

/// Adds factors of one rank to each other, each times its own share: what peers' `linear` does.
#[track_caller]
pub(super) fn add_factors(inputs: &[Weighted], share: impl Fn(&Weighted) -> (f64, f64)) -> LowRank {
    let mut inputs = inputs.iter().map(|input| {
        let (up, down) = share(input);
        (&input.factors.up * up, &input.factors.down * down)
    });
    let (mut up, mut down) = inputs.next().unwrap_or_default();
    for (other_up, other_down) in inputs {
        up += other_up;
        down += other_down;
    }
    LowRank::new(up, down)
}
