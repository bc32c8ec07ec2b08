//! Elementwise methods on something else than the elements of the deltas.
//!
//! - factors: on A and on B, apart, as PEFT's `ties`, `dare_linear`, … do. Cross terms come in.
//! - core: on each adapter's R × R core in singular bases of all A and all B (Core Space, Panariello et al.
//!   2025, <https://arxiv.org/abs/2509.17786>).
//! - knots: on each adapter's coordinates in the left singular basis of all deltas side by side (KnOTS,
//!   Stoica et al. 2024, <https://arxiv.org/abs/2410.19735>).
//!
//! The result is a product of factors at once; no element of a delta is formed.

use super::compat::Compat;
use super::elementwise::{Blending, Elementwise};
use super::inputs::{Combined, Problem, Weighted};
use super::panel::{InputWeight, Panel};
use super::params::LAMBDA;
use crate::math::linalg::low_rank::orthonormal_basis;
use crate::math::linalg::matrix::{product, transposed_product};
use crate::math::{LowRank, Matrix};

/// Where an elementwise method looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Space {
    /// At the elements of the deltas.
    #[default]
    Delta,
    /// At the elements of cores that all adapters share.
    Core,
    /// At coordinates in the outputs that all adapters share.
    Knots,
    /// At the elements of A and of B.
    Factors,
}

impl Space {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Core => "core",
            Self::Knots => "knots",
            Self::Factors => "factors",
        }
    }

    /// What the method makes of a module of that name, unless the space is that of the deltas.
    pub fn combine(self, rule: Elementwise, problem: &Problem, name: &str) -> Option<Combined> {
        let factors = match self {
            Self::Delta => return None,
            Self::Factors => in_factors(rule, problem, name),
            Self::Core => in_core(rule, problem, name),
            Self::Knots => in_knots(rule, problem, name),
        };
        Some(Combined { factors, scale: 1.0 })
    }
}

/// Blends small matrices of one shape.
fn blend(
    rule: Elementwise,
    problem: &Problem,
    name: &str,
    matrices: &[Matrix],
    weights: impl Fn(&Weighted) -> f64,
) -> Matrix {
    let (rows, columns) = matrices.first().map_or((0, 0), Matrix::shape);
    let part = |input: &Weighted| InputWeight { adapter: input.adapter, weight: weights(input) };
    let parts: Vec<InputWeight> = problem.inputs.iter().map(part).collect();
    let how = (problem.settings, problem.compat);
    let mut blending =
        Blending::new(rule, how, (name, rows, columns), &parts, problem.weights.len());
    let mut panel = Panel::default();
    let read = |panel: &mut Panel| {
        panel.begin(matrices.len(), 0, rows, columns);
        for (delta, matrix) in panel.deltas_mut().iter_mut().zip(matrices) {
            for (slot, value) in delta.iter_mut().zip(&matrix.transpose()) {
                *slot = *value as f32;
            }
        }
    };
    while blending.wants_pass() {
        let mut counts = blending.counts();
        read(&mut panel);
        blending.count(&mut panel, &mut counts);
        blending.finish_pass(&counts);
    }
    let mut out = vec![0.0; rows * columns];
    read(&mut panel);
    blending.combine(&mut panel, &mut out);
    Matrix::from_row_iterator(rows, columns, out.into_iter().map(f64::from))
}

/// √|weight| on each side, its sign on A; the scale is in the factors, √|scale| in each, so that a mean
/// of them does not lose it. PEFT has the scale in the weight.
fn in_factors(rule: Elementwise, problem: &Problem, name: &str) -> LowRank {
    let peft = problem.compat == Some(Compat::Peft);
    let as_given = |input: &Weighted| input.factors.clone();
    let factors: Vec<LowRank> = match peft {
        true => problem.inputs.iter().map(as_given).collect(),
        false => unweighted(problem),
    };
    let (ups, downs): (Vec<Matrix>, Vec<Matrix>) =
        factors.into_iter().map(|LowRank { up, down }| (up, down)).unzip();
    let weight = |input: &Weighted| if peft { input.coefficient() } else { input.weight };
    let share = |input: &Weighted| weight(input).abs().sqrt();
    let signed = |input: &Weighted| if weight(input) >= 0.0 { share(input) } else { -share(input) };
    let up = blend(rule, problem, &format!("{name}.B"), &ups, share);
    let down = blend(rule, problem, &format!("{name}.A"), &downs, signed);
    // λ is in both, and is meant once.
    let lambda = problem.settings.number(&LAMBDA);
    LowRank::new(if lambda == 0.0 { up } else { up / lambda }, down)
}

/// Every delta without its weight: √|scale| on each side.
fn unweighted(problem: &Problem) -> Vec<LowRank> {
    problem.inputs.iter().map(|input| input.times(input.scale)).collect()
}

fn in_core(rule: Elementwise, problem: &Problem, name: &str) -> LowRank {
    let deltas = unweighted(problem);
    let all = LowRank::sum(problem.rows, problem.columns, &deltas);
    let (left, right) = (orthonormal_basis(all.up), orthonormal_basis(all.down.transpose()));
    let core = |delta: &LowRank| {
        product(&transposed_product(&left, &delta.up), &product(&delta.down, &right))
    };
    let cores: Vec<Matrix> = deltas.iter().map(core).collect();
    let merged = blend(rule, problem, name, &cores, |input| input.weight);
    LowRank::new(product(&left, &merged), right.transpose())
}

fn in_knots(rule: Elementwise, problem: &Problem, name: &str) -> LowRank {
    let deltas = unweighted(problem);
    // [Δ₁ … Δ_T] = [B₁ … B_T] · diag(A₁ … A_T): its left singular vectors, without its width.
    let rank: usize = deltas.iter().map(LowRank::rank).sum();
    let all = LowRank::sum(problem.rows, problem.columns, &deltas);
    let mut wide = Matrix::zeros(rank, problem.columns * deltas.len());
    let mut at = 0;
    for (which, delta) in deltas.iter().enumerate() {
        let place = (at, which * problem.columns);
        wide.view_mut(place, delta.down.shape()).copy_from(&delta.down);
        at += delta.rank();
    }
    let svd = LowRank::new(all.up, wide).svd();
    let left = svd.vectors(svd.numerical_rank()).0;
    let coordinates = |delta: &LowRank| product(&transposed_product(&left, &delta.up), &delta.down);
    let parts: Vec<Matrix> = deltas.iter().map(coordinates).collect();
    let merged = blend(rule, problem, name, &parts, |input| input.weight);
    LowRank::new(left, merged)
}
