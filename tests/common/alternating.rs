//! The best that shared directions can do, by the plain alternation of dense matrices: U ← the leading eigenvectors
//! of Σ w·Δ·V·Vᵀ·Δᵀ, V ← those of Σ w·Δᵀ·U·Uᵀ·Δ, until neither moves; and what does not do it, a PCA of the factors.

use super::dense::Dense;
use super::svd::Svd;

/// Rounds of the alternation; far more than it takes here.
const ROUNDS: usize = 40;

/// Leading eigenvectors of Σ w·(Δ·V)·(Δ·V)ᵀ.
fn leading(deltas: &[Dense], v: &Dense, count: usize) -> Dense {
    let size = deltas[0].rows;
    let sum = deltas.iter().fold(Dense::zeros(size, size), |sum, delta| {
        let seen = delta.times(v);
        sum.plus(&seen.times(&seen.transposed()).scaled(1.0 / delta.inner(delta)))
    });
    Svd::of(&sum).left_basis(count)
}

fn identity(size: usize) -> Dense {
    let value = |at: usize| if at.is_multiple_of(size + 1) { 1.0 } else { 0.0 };
    Dense::new(size, size, (0..size * size).map(value).collect())
}

/// √ of the mean of ‖Δ − U·Uᵀ·Δ·V·Vᵀ‖² / ‖Δ‖².
pub fn error(deltas: &[Dense], u: &Dense, v: &Dense) -> f64 {
    let share = |delta: &Dense| {
        let held = u.transposed().times(delta).times(v);
        1.0 - held.inner(&held) / delta.inner(delta)
    };
    (deltas.iter().map(share).sum::<f64>().max(0.0) / deltas.len() as f64).sqrt()
}

/// The error of the alternation's optimum, of matrices that count alike.
pub fn optimum(deltas: &[Dense], count: usize) -> f64 {
    let turned: Vec<Dense> = deltas.iter().map(Dense::transposed).collect();
    let mut v = leading(&turned, &identity(deltas[0].rows), count);
    let mut u = leading(deltas, &v, count);
    for _ in 0..ROUNDS {
        v = leading(&turned, &u, count);
        u = leading(deltas, &v, count);
    }
    error(deltas, &u, &v)
}

/// The error where the inputs alone are shared: Δ·V·Vᵀ.
pub fn inputs_optimum(deltas: &[Dense], count: usize) -> f64 {
    let turned: Vec<Dense> = deltas.iter().map(Dense::transposed).collect();
    let v = leading(&turned, &identity(deltas[0].rows), count);
    error(deltas, &identity(deltas[0].rows), &v)
}

/// The error of the directions that the factors themselves fill the most, B's columns and A's rows.
pub fn pca_of_factors(factors: &[(Dense, Dense)], count: usize) -> f64 {
    let sum = |of: &dyn Fn(&(Dense, Dense)) -> Dense| {
        let mut grams = factors.iter().map(|pair| {
            let columns = of(pair);
            columns.times(&columns.transposed())
        });
        let start = grams.next().expect("an adapter");
        Svd::of(&grams.fold(start, |sum, gram| sum.plus(&gram))).left_basis(count)
    };
    let (u, v) = (sum(&|pair| pair.0.clone()), sum(&|pair| pair.1.transposed()));
    let deltas: Vec<Dense> = factors.iter().map(|(up, down)| up.times(down)).collect();
    error(&deltas, &u, &v)
}
