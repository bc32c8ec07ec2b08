//! Methods whose result is a sum of the deltas with coefficients of its own, on the deltas themselves:
//! no inner product is taken but of whole matrices.

use super::{Dense, Problem};
use lora_tool::method::Compat;

/// Σ wᵢ·Δᵢ.
pub fn linear(problem: &Problem) -> Dense {
    problem.sum(&problem.weighted())
}

/// Shoemake's formula between the weighted deltas; a delta that a module lacks is 0.
pub fn slerp(problem: &Problem) -> Dense {
    let t = problem.number("t");
    let mut ends = [problem.zeros(), problem.zeros()];
    for input in problem.inputs {
        ends[input.adapter] = input.weighted();
    }
    let [a, b] = &ends;
    let line = a.scaled(1.0 - t).plus(&b.scaled(t));
    let lengths = a.norm() * b.norm();
    if lengths == 0.0 {
        return line;
    }
    let cosine = a.inner(b) / lengths;
    problem.decided_by(cosine.abs() - 0.9995);
    if cosine.abs() > 0.9995 {
        return line;
    }
    let angle = cosine.acos();
    let (near, far) = (((1.0 - t) * angle).sin(), (t * angle).sin());
    a.scaled(near / angle.sin()).plus(&b.scaled(far / angle.sin()))
}

/// The fixed point of "go to the mean of the tangents", from the normalised mean of the directions.
pub fn karcher(problem: &Problem) -> Dense {
    let rounds = if problem.compat == Some(Compat::Mergekit) { 10 } else { 5000 };
    let mergekit = problem.compat == Some(Compat::Mergekit);
    let least = if mergekit { 1e-5 } else { 1e-14 };
    let total: f64 = problem.weights.iter().map(|weight| weight.abs()).sum();
    let mut length = 0.0;
    let (mut units, mut shares) = (Vec::new(), Vec::new());
    for input in problem.inputs {
        let weighted = input.weighted();
        length += input.weight.abs() / total * input.delta().norm();
        if input.delta().norm() > if mergekit { 1e-5 } else { 0.0 } {
            units.push(weighted.scaled(1.0 / weighted.norm()));
            shares.push(input.weight.abs());
        }
    }
    if units.is_empty() {
        return problem.zeros();
    }
    let present: f64 = shares.iter().sum();
    let parts: Vec<Dense> =
        units.iter().zip(&shares).map(|(unit, share)| unit.scaled(share / present)).collect();
    let start = problem.sum(&parts);
    // Directions that cancel have no mean.
    problem.decided_by(start.norm());
    if start.norm() < 1e-9 {
        return problem.zeros();
    }
    let mut mean = start.scaled(1.0 / start.norm());
    for _ in 0..rounds {
        let mut tangent = problem.zeros();
        for (unit, share) in units.iter().zip(&shares) {
            let along = mean.inner(unit).clamp(-1.0, 1.0);
            let across = unit.minus(&mean.scaled(along));
            // The angle of the two parts is exact where an arc cosine would not be.
            let angle = across.norm().atan2(along);
            // Opposite directions are at the end of every arc.
            if along < 0.0 && across.norm() > 1e-12 {
                problem.decided_by(across.norm());
            }
            if across.norm() > 1e-12 && angle >= least {
                tangent = tangent.plus(&across.scaled(share / present * angle / across.norm()));
            }
        }
        let step = tangent.norm();
        if step < least.max(1e-13) {
            break;
        }
        mean = mean.scaled(step.cos()).plus(&tangent.scaled(step.sin() / step));
        mean = mean.scaled(1.0 / mean.norm());
    }
    mean.scaled(length)
}

/// t = N·cos θ / (1 + (N − 1)·cos θ) of the mean, cos θ over all pairs; an absent delta is at right
/// angles to everything.
pub fn model_stock(problem: &Problem) -> Dense {
    let count = problem.weights.len() as f64;
    let deltas = problem.weighted();
    let mut cosines = 0.0;
    for (at, a) in deltas.iter().enumerate() {
        for b in &deltas[at + 1..] {
            let lengths = a.norm() * b.norm();
            // mergekit divides by 1e-6 at least.
            let mergekit = problem.compat == Some(Compat::Mergekit);
            let lengths = if mergekit { f64::max(lengths, 1e-6) } else { lengths };
            cosines += if lengths > 0.0 { a.inner(b) / lengths } else { 0.0 };
        }
    }
    let mut cosine = if count > 1.0 { cosines / (count * (count - 1.0) / 2.0) } else { 1.0 };
    if problem.compat.is_none() {
        cosine = cosine.max(0.0);
    }
    problem.decided_by(1.0 + (count - 1.0) * cosine);
    let t = count * cosine / (1.0 + (count - 1.0) * cosine);
    problem.sum(&deltas).scaled(t / count)
}

/// m = β·m + (1 − β)·Δ, adapter after adapter, from the first.
pub fn ema(problem: &Problem) -> Dense {
    let beta = problem.number("beta");
    let mut mean = problem.zeros();
    for adapter in 0..problem.weights.len() {
        let own = problem.inputs.iter().find(|input| input.adapter == adapter);
        let own = own.map_or_else(|| problem.zeros(), super::Input::weighted);
        mean = if adapter == 0 { own } else { mean.scaled(beta).plus(&own.scaled(1.0 - beta)) };
    }
    mean
}
