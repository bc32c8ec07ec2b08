//! The Karcher mean: the direction whose squared angles to all deltas' directions are least, at the
//! weighted mean of their lengths (Karcher 1977; mergekit `merge_methods/karcher.py`).
//!
//! mergekit's is of whole weights, and so is what `merge` makes of it for `--compat mergekit`; `combine`,
//! which has no base, stays with the deltas.
//!
//! Directions are kept as coefficients over the deltas, so that all of it happens in the inner products.

use super::params::LAMBDA;
use super::{Compat, Kind, Law, Method, Problem, anything};
use crate::math::Matrix;

pub(super) static METHOD: Method = Method {
    name: "karcher",
    aliases: &[],
    summary: "the mean direction on the sphere, at the mean length",
    source: "https://doi.org/10.1002/cpa.3160300502",
    takes: &[LAMBDA],
    peers: &[Compat::Mergekit],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Permutation, Law::Scale],
    check: anything,
    kind: Kind::Gram(coefficients),
};

/// The sine below which an angle is a half turn: that of a cosine whose last digits are rounding.
const OPPOSITE: f64 = 1e-7;

fn coefficients(gram: &Matrix, problem: &Problem) -> Vec<f64> {
    // mergekit stops after ten rounds, at a coarse tolerance.
    let (rounds, tolerance) =
        if problem.compat == Some(Compat::Mergekit) { (10, 1e-5) } else { (500, 1e-14) };
    let total: f64 = problem.weights.iter().map(|weight| weight.abs()).sum();
    // The deltas carry their weights; lengths and shares are those of the deltas without.
    let parts: Vec<(f64, f64)> = (problem.inputs.iter().enumerate())
        .map(|(at, input)| {
            let weight = input.weight.abs();
            let length = if weight > 0.0 { gram[(at, at)].max(0.0).sqrt() / weight } else { 0.0 };
            (weight / total, length)
        })
        .collect();
    let scale: f64 = parts.iter().map(|(share, length)| share * length).sum();
    // mergekit sees no direction in what is shorter than its tolerance.
    let least = if problem.compat == Some(Compat::Mergekit) { tolerance } else { 0.0 };
    let present: f64 = parts.iter().filter(|part| part.1 > least).map(|part| part.0).sum();
    if present == 0.0 {
        return vec![0.0; parts.len()];
    }
    // u = Σ cᵢ·(weighted delta i); units[i] is the coefficient that makes delta i a unit.
    let units: Vec<f64> = (0..parts.len())
        .map(|at| if parts[at].1 > least { 1.0 / gram[(at, at)].sqrt() } else { 0.0 })
        .collect();
    let shares: Vec<f64> = parts.iter().map(|part| part.0 / present).collect();
    let mut u: Vec<f64> = shares.iter().zip(&units).map(|(share, unit)| share * unit).collect();
    if !normalise(&mut u, gram, f64::max(tolerance, OPPOSITE)) {
        // All directions cancel, and no order of them is to matter; mergekit takes the first.
        if problem.compat.is_none() {
            return vec![0.0; parts.len()];
        }
        u.fill(0.0);
        let first = units.iter().position(|unit| *unit > 0.0).unwrap_or(0);
        u[first] = units[first];
    }
    for _ in 0..rounds {
        let mut step = vec![0.0; u.len()];
        for (at, unit) in units.iter().enumerate() {
            let cosine = (dot_with(&u, gram, at) * unit).clamp(-1.0, 1.0);
            let angle = cosine.acos();
            // An opposite direction is at the end of every arc: rounding must not choose one.
            let opposite = cosine < 0.0 && angle.sin() < OPPOSITE;
            if *unit == 0.0 || angle < tolerance || angle.sin() == 0.0 || opposite {
                continue;
            }
            let pull = shares[at] * angle / angle.sin();
            step[at] += pull * unit;
            for (step, value) in step.iter_mut().zip(&u) {
                *step -= pull * cosine * value;
            }
        }
        let length = norm(&step, gram);
        if length < tolerance {
            break;
        }
        for (value, step) in u.iter_mut().zip(&step) {
            *value = length.cos() * *value + length.sin() * step / length;
        }
        normalise(&mut u, gram, tolerance);
    }
    u.iter().map(|value| value * scale).collect()
}

/// ⟨u, delta `at`⟩.
fn dot_with(u: &[f64], gram: &Matrix, at: usize) -> f64 {
    u.iter().enumerate().map(|(row, value)| value * gram[(row, at)]).sum()
}

fn norm(u: &[f64], gram: &Matrix) -> f64 {
    let squared: f64 = u.iter().enumerate().map(|(at, value)| value * dot_with(u, gram, at)).sum();
    squared.max(0.0).sqrt()
}

/// Makes it a unit, unless it is next to nothing.
fn normalise(u: &mut [f64], gram: &Matrix, least: f64) -> bool {
    let length = norm(u, gram);
    if length < least {
        return false;
    }
    for value in u {
        *value /= length;
    }
    true
}
