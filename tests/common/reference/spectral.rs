//! Methods on singular values and vectors, each on a dense matrix with a dense decomposition.

use super::super::svd::{Svd, side_by_side};
use super::{Dense, Problem};

/// Singular values this much smaller than the largest are rounding of factors in f32.
const NOTHING: f64 = 1.0 / 16_777_216.0;

/// The rank, recorded as a decision: how far from the limit, in powers, the values next to it are.
fn rank(problem: &Problem, svd: &Svd, share: f64) -> usize {
    let first = svd.values.first().copied().unwrap_or(0.0);
    for value in &svd.values {
        if first > 0.0 && *value > 0.0 {
            problem.decided_by((value / (share * first)).ln().abs() / 3e5);
        }
    }
    svd.rank(share)
}

/// Û⊥·Σ̂·V̂⊥ᵀ of all deltas' own directions, ⊥ the polar factor (Gargiulo et al. 2024, eq. 7 to 9; where
/// directions are shared, on what they span).
pub fn tsv(problem: &Problem) -> Dense {
    let (mut left, mut right, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for delta in problem.weighted() {
        let svd = Svd::of(&delta);
        let rank = rank(problem, &svd, NOTHING);
        left.extend_from_slice(&svd.left[..rank]);
        right.extend_from_slice(&svd.right[..rank]);
        values.extend_from_slice(&svd.values[..rank]);
    }
    if values.is_empty() {
        return problem.zeros();
    }
    let (left, right) = (polar(problem, &left), polar(problem, &right));
    let mut middle = Dense::zeros(values.len(), values.len());
    for (at, value) in values.iter().enumerate() {
        middle.values[at * values.len() + at] = *value;
    }
    left.times(&middle).times(&right.transposed())
}

/// The sum with all its singular values at their mean.
pub fn iso_c(problem: &Problem) -> Dense {
    let parts = problem.weighted();
    let svd = Svd::of(&problem.sum(&parts));
    let size: f64 = parts.iter().map(Dense::norm).sum();
    let first = svd.values.first().copied().unwrap_or(0.0);
    // What cancels leaves its rounding.
    problem.decided_by(if size > 0.0 && first / size < 1e-6 { 0.0 } else { 1.0 });
    let rank = rank(problem, &svd, NOTHING);
    let mean = svd.values[..rank].iter().sum::<f64>() / rank.max(1) as f64;
    svd.with(&vec![mean; rank])
}

/// The sum's first directions, and of each delta the first outside of them on the left; polar factors on
/// both sides, all values at their mean (Marczak et al. 2025, algorithm 2).
pub fn iso_cts(problem: &Problem) -> Dense {
    let parts = problem.weighted();
    let sum = Svd::of(&problem.sum(&parts));
    let size: f64 = parts.iter().map(Dense::norm).sum();
    let first = sum.values.first().copied().unwrap_or(0.0);
    // What cancels leaves its rounding.
    problem.decided_by(if size > 0.0 && first / size < 1e-6 { 0.0 } else { 1.0 });
    let all = rank(problem, &sum, NOTHING);
    let parts: Vec<&Dense> = parts.iter().filter(|part| part.norm() > 0.0).collect();
    if all == 0 || parts.is_empty() {
        return problem.zeros();
    }
    let others = all - (all as f64 * problem.number("common")).floor() as usize;
    let own = (others as f64 / parts.len() as f64).round_ties_even() as usize;
    let own = own.min(all / parts.len());
    let common = all - parts.len() * own;
    // Which of two alike is the last one in, rounding decides.
    let cut = |svd: &Svd, at: usize| {
        if at > 0 && at < svd.values.len() && svd.values[at] > 0.0 {
            problem.decided_by((svd.values[at - 1] - svd.values[at]) / svd.values[0]);
        }
    };
    cut(&sum, common);
    let (mut left, mut right) = (sum.left[..common].to_vec(), sum.right[..common].to_vec());
    let mut values = sum.values[..common].to_vec();
    for part in parts {
        let outside = match common {
            0 => part.clone(),
            _ => {
                let basis = sum.left_basis(common);
                part.minus(&basis.times(&basis.transposed().times(part)))
            }
        };
        let svd = Svd::of(&outside);
        let least = 1e-6 * Svd::of(part).values[0];
        for value in svd.values.iter().filter(|value| **value > 1e-12 * least / 1e-6) {
            problem.decided_by((value / least).ln().abs() / 3e5);
        }
        let count = svd.values.iter().filter(|value| **value > least).count().min(own);
        cut(&svd, count);
        left.extend_from_slice(&svd.left[..count]);
        right.extend_from_slice(&svd.right[..count]);
        values.extend_from_slice(&svd.values[..count]);
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let left = polar(problem, &left);
    left.times(&polar(problem, &right).transposed()).scaled(mean)
}

/// The nearest matrix with orthonormal columns, on what the columns span.
fn polar(problem: &Problem, columns: &[Vec<f64>]) -> Dense {
    let svd = Svd::of(&side_by_side(columns));
    let rank = rank(problem, &svd, 1e-4);
    svd.with(&vec![1.0; rank])
}

/// Each delta's fewest values that hold η of their sum, scaled up to all of it (Lee et al. 2025, eq. 4
/// and 5; IBM's `merger/STAR.py`).
pub fn star(problem: &Problem) -> Dense {
    let eta = problem.number("eta");
    let cut = |delta: &Dense| {
        let mut svd = Svd::of(delta);
        let whole: f64 = svd.values.iter().sum();
        if whole == 0.0 {
            return delta.clone();
        }
        let (mut held, mut kept) = (0.0, 0);
        for value in &svd.values {
            problem.decided_by(if eta < 1.0 { held / whole - eta } else { 1.0 });
            if held >= eta * whole * (1.0 - 1e-13) {
                break;
            }
            held += value;
            kept += 1;
        }
        // Which of two equal values stays is nobody's choice.
        if let Some(next) = svd.values.get(kept) {
            problem.decided_by((svd.values[kept - 1] - next) / whole);
        }
        svd.values.truncate(kept);
        svd.values.iter_mut().for_each(|value| *value *= whole / held);
        svd.with(&svd.values)
    };
    let parts: Vec<Dense> = problem.weighted().iter().map(cut).collect();
    problem.sum(&parts)
}

/// P·Pᵀ·(Σ wᵢΔᵢ)·Q·Qᵀ, P and Q by alternating rounds on deltas of one length (Ye 2005), the first with
/// all of the columns.
pub fn shared_basis(problem: &Problem) -> Dense {
    let parts = problem.weighted();
    let sum = problem.sum(&parts);
    let stacked: usize = problem.inputs.iter().map(|input| input.up.columns).sum();
    let all = stacked.min(problem.rows).min(problem.columns);
    let Some(rank) = problem.rank.filter(|rank| *rank < all) else { return sum };
    let balanced: Vec<Dense> = parts.iter().filter(|part| part.norm() > 0.0).cloned().collect();
    let balanced: Vec<Dense> = balanced.iter().map(|part| part.scaled(1.0 / part.norm())).collect();
    if balanced.is_empty() {
        return sum;
    }
    let leading = |parts: &[Dense]| {
        let size = parts[0].rows;
        let seen = |sum: Dense, part: &Dense| sum.plus(&part.times(&part.transposed()));
        let svd = Svd::of(&parts.iter().fold(Dense::zeros(size, size), seen));
        if let (Some(last), Some(next)) = (svd.values.get(rank - 1), svd.values.get(rank)) {
            // A basis of fewer directions than asked for has room for any.
            let gap =
                if *next < 1e-12 * svd.values[0] { 1.0 } else { (last - next) / svd.values[0] };
            problem.decided_by(gap);
        }
        svd.left_basis(rank)
    };
    let project = |parts: &[Dense], basis: &Dense| -> Vec<Dense> {
        parts.iter().map(|part| part.times(basis)).collect()
    };
    let turned: Vec<Dense> = balanced.iter().map(Dense::transposed).collect();
    let mut p = leading(&balanced);
    let mut q = leading(&project(&turned, &p));
    for _ in 1..8 {
        p = leading(&project(&balanced, &q));
        q = leading(&project(&turned, &p));
    }
    p.times(&p.transposed()).times(&sum).times(&q).times(&q.transposed())
}

/// (S + ρ)⁻¹·Σ (Δ̂·Δ̂ᵀ + ρ)·Δ with S = Σ Δ̂·Δ̂ᵀ and ρ the ridge times its mean eigenvalue on what deltas
/// write; of a rank, what is nearest in (S + ρ)^½ (Cheng et al. 2025, eq. 9, and Izenman 1975).
pub fn df_regmean(problem: &Problem) -> Dense {
    let turned = problem.word("side") == "in";
    let parts = problem.weighted().into_iter().filter(|part| part.norm() > 0.0);
    let parts: Vec<Dense> =
        parts.map(|part| if turned { part.transposed() } else { part }).collect();
    let Some(first) = parts.first() else { return problem.zeros() };
    let size = first.rows;
    let unit = |part: &Dense| part.scaled(1.0 / part.norm());
    let columns = |part: &Dense| -> Vec<Vec<f64>> {
        let turned = unit(part).transposed();
        turned.values.chunks(size).map(<[f64]>::to_vec).collect()
    };
    for part in &parts {
        rank(problem, &Svd::of(part), NOTHING);
    }
    let written = Svd::of(&side_by_side(&parts.iter().flat_map(columns).collect::<Vec<_>>()));
    let width = rank(problem, &written, NOTHING);
    let rho = problem.number("ridge") * parts.len() as f64 / width as f64;
    let mut pull = Dense::zeros(size, size);
    for at in 0..size {
        pull.values[at * size + at] = rho;
    }
    let mut right = Dense::zeros(size, first.columns);
    for part in &parts {
        let gram = unit(part).times(&unit(part).transposed());
        right = right.plus(&gram.times(part)).plus(&part.scaled(rho));
        pull = pull.plus(&gram);
    }
    let eigen = Svd::of(&pull);
    let root: Vec<f64> = eigen.values.iter().map(|value| 1.0 / value.sqrt()).collect();
    let root = eigen.with(&root);
    let mut svd = Svd::of(&root.times(&right));
    if let Some(rank) = problem.rank {
        if let (Some(last), Some(next)) = (svd.values.get(rank - 1), svd.values.get(rank)) {
            let gap =
                if *next < 1e-12 * svd.values[0] { 1.0 } else { (last - next) / svd.values[0] };
            problem.decided_by(gap);
        }
        svd.values.truncate(rank);
    }
    let merged = root.times(&svd.with(&svd.values));
    if turned { merged.transposed() } else { merged }
}
