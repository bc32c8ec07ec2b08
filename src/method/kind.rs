//! What a method is: its name and formula, what it needs to see of the deltas, and the laws it obeys.

use super::compat::Compat;
use super::elementwise::Elementwise;
use super::inputs::{Check, Combined, Problem};
use super::params::{LAMBDA, Param};
use crate::math::Matrix;

/// Which inputs a law's test gives a method; every method names the laws it obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// One adapter at weight 1, and at density 1 if there is one, is itself.
    Identity,
    /// One adapter at weight −1, and at density 1 if there is one, is its negative.
    Negation,
    /// The order of the inputs does not matter.
    Permutation,
    /// The result is the weighted sum of the deltas.
    WeightedSum,
    /// The factors of the result are the weighted deltas' own, one delta after another.
    Stack,
    /// Deltas twice as large give a result twice as large.
    Scale,
}

/// How a method works, by what it needs to see of the deltas.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// The factors as they are.
    Factors(fn(&Problem) -> Combined),
    /// The deltas' inner products, to find a coefficient for each; the result is their sum.
    Gram(fn(&Matrix, &Problem) -> Vec<f64>),
    /// The deltas' singular values and vectors, in the core that all factors share.
    Core(fn(&Problem) -> Combined),
    /// Every element of the deltas.
    Elementwise(Elementwise),
}

impl Kind {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Factors(_) => "factors",
            Self::Gram(_) => "gram",
            Self::Core(_) => "core",
            Self::Elementwise(_) => "elementwise",
        }
    }

    /// What it takes for m × n deltas of rank r, R in all.
    pub fn cost(&self) -> &'static str {
        match self {
            Self::Factors(_) => "O((m + n)·R)",
            Self::Gram(_) | Self::Core(_) => "O((m + n)·R²)",
            Self::Elementwise(_) => "O(m·n·R)",
        }
    }
}

/// One way to combine deltas.
#[derive(Debug)]
pub struct Method {
    /// Its name in `--method`.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// What it does, in a line.
    pub summary: &'static str,
    /// Where the formula is from.
    pub source: &'static str,
    /// The parameters it takes; all others are refused.
    pub takes: &'static [Param],
    /// Peers that have it, whose arithmetic it reproduces when asked to.
    pub peers: &'static [Compat],
    /// Whether the factors themselves are the result, unless a rank is asked for.
    pub keeps_factors: bool,
    /// Laws it obeys.
    pub laws: &'static [Law],
    /// Whether it takes such inputs; what it is given has passed.
    pub check: Check,
    /// The method itself.
    pub kind: Kind,
}

impl Method {
    /// The elementwise rule, if it is one.
    pub fn elementwise(&self) -> Option<Elementwise> {
        match self.kind {
            Kind::Elementwise(rule) => Some(rule),
            _ => None,
        }
    }

    /// Combines in factors, λ times; elementwise methods have none and give `None`.
    pub fn combine(&self, problem: &Problem) -> Option<Combined> {
        let mut combined = match self.kind {
            Kind::Factors(combine) | Kind::Core(combine) => combine(problem),
            Kind::Gram(coefficients) => problem.sum_of(&coefficients(&problem.gram(), problem)),
            Kind::Elementwise(_) => return None,
        };
        combined.scale *= problem.settings.number(&LAMBDA);
        Some(combined)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{METHODS, Settings, Weighted};
    use super::*;
    use crate::math::LowRank;

    #[test]
    fn stacks_have_the_weighted_deltas_one_after_another() {
        let value = |row: usize, column: usize| ((row * 7 + column * 5) % 11) as f64 - 4.5;
        let input = |adapter: usize, rank: usize, weight: f64| {
            let up = Matrix::from_fn(6, rank, |row, column| value(row + adapter, column));
            let down = Matrix::from_fn(rank, 5, |row, column| value(row, column + adapter));
            Weighted { factors: LowRank::new(up, down), scale: 0.5, weight, adapter }
        };
        let inputs = [input(0, 2, 1.5), input(1, 3, -0.25)];
        let stacks = METHODS.iter().filter(|method| method.laws.contains(&Law::Stack));
        for method in stacks {
            let settings =
                Settings::new(method.name, method.takes, &super::super::params::Given::new(), 2)
                    .unwrap_or_default();
            let problem = Problem {
                rows: 6,
                columns: 5,
                inputs: &inputs,
                weights: &[1.5, -0.25],
                settings: &settings,
                compat: None,
                rank: Some(1),
            };
            let stack =
                method.combine(&problem).map_or_else(|| LowRank::zero(6, 5), |all| all.factors);
            assert_eq!(stack.rank(), 5, "{}", method.name);
            for (input, first) in inputs.iter().zip([0, 2]) {
                let rank = input.factors.rank();
                let up = stack.up.columns(first, rank).clone_owned();
                let part = LowRank::new(up, stack.down.rows(first, rank).clone_owned());
                let off = (part.dense() - input.delta().dense()).amax();
                assert!(off < 1e-12, "{}: {off}", method.name);
            }
        }
    }
}
