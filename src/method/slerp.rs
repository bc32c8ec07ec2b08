//! Spherical interpolation between two deltas (Shoemake 1985; mergekit `merge_methods/slerp.py`): with θ
//! the angle between them, sin((1 − t)·θ)/sin θ of the first and sin(t·θ)/sin θ of the second.
//!
//! mergekit's is between whole weights, and so is what `merge` makes of it for `--compat mergekit`;
//! `combine`, which has no base, stays with the deltas.
//!
//! Deltas that point the same way, or one of which is 0, are interpolated on the line between them.

use super::params::{LAMBDA, T};
use super::{Compat, Kind, Law, Method, Problem, Refusal, Sketch};
use crate::math::Matrix;

pub(super) static METHOD: Method = Method {
    name: "slerp",
    aliases: &[],
    summary: "between two deltas, along the arc that keeps their length",
    source: "https://doi.org/10.1145/325334.325242",
    takes: &[T, LAMBDA],
    peers: &[Compat::Mergekit],
    keeps_factors: false,
    laws: &[Law::Permutation, Law::Scale],
    check,
    kind: Kind::Gram(coefficients),
};

/// The cosine beyond which the arc is a line, as mergekit has it.
const ALIKE: f64 = 0.9995;

fn check(sketch: &Sketch) -> Result<(), Refusal> {
    match sketch.adapters {
        2 => Ok(()),
        adapters => Err(Refusal::NotTwo { method: METHOD.name, adapters }),
    }
}

fn coefficients(gram: &Matrix, problem: &Problem) -> Vec<f64> {
    let t = problem.settings.number(&T);
    let share = |input: &super::Weighted| if input.adapter == 0 { 1.0 - t } else { t };
    let line: Vec<f64> = problem.inputs.iter().map(share).collect();
    if gram.nrows() < 2 {
        return line;
    }
    let norms = (gram[(0, 0)] * gram[(1, 1)]).sqrt();
    let cosine = if norms > 0.0 { (gram[(0, 1)] / norms).clamp(-1.0, 1.0) } else { 1.0 };
    // Opposite directions have no arc of their own between them.
    if cosine.abs() > ALIKE {
        return line;
    }
    let angle = cosine.acos();
    line.iter().map(|share| (share * angle).sin() / angle.sin()).collect()
}
