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
