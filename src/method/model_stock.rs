//! Model Stock: the deltas' mean, shortened by how far they are apart: with N deltas and cos θ the mean
//! cosine of their pairs, t = N·cos θ / (1 + (N − 1)·cos θ) of the mean (Jang, Yun and Han 2024,
//! <https://arxiv.org/abs/2403.19522>; the mean over pairs is mergekit's).
//!
//! Deltas that point away from each other on the whole leave nothing; mergekit lets t become negative.

use super::params::LAMBDA;
use super::{Compat, Kind, Law, Method, Problem, anything};
use crate::math::Matrix;

pub(super) static METHOD: Method = Method {
    name: "model-stock",
    aliases: &[],
    summary: "the mean of the deltas, shortened by the angle between them",
    source: "https://arxiv.org/abs/2403.19522",
    takes: &[LAMBDA],
    peers: &[Compat::Mergekit],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Permutation, Law::Scale],
    check: anything,
    kind: Kind::Gram(coefficients),
};

/// mergekit divides by no smaller product of two lengths.
const LEAST: f64 = 1e-6;

fn coefficients(gram: &Matrix, problem: &Problem) -> Vec<f64> {
    // Adapters without a part here are deltas of 0, at right angles to everything.
    let count = problem.weights.len();
    let least = if problem.compat == Some(Compat::Mergekit) { LEAST } else { 0.0 };
    let mut cosines = 0.0;
    for row in 0..gram.nrows() {
        for column in row + 1..gram.nrows() {
            let norms = (gram[(row, row)] * gram[(column, column)]).sqrt();
            let norms = norms.max(least);
            cosines += if norms > 0.0 { (gram[(row, column)] / norms).clamp(-1.0, 1.0) } else { 0.0 };
        }
    }
    let pairs = (count * (count - 1) / 2) as f64;
    let cosine = if count > 1 { cosines / pairs } else { 1.0 };
    let cosine = if problem.compat.is_some() { cosine } else { cosine.max(0.0) };
    let count = count as f64;
    let ratio = count * cosine / (1.0 + (count - 1.0) * cosine);
    vec![ratio / count; problem.inputs.len()]
}
