//! Data-free regression: the matrix of the output's rank that changes what each delta writes as that delta
//! does, and no more.
//!
//! With Δᵢ the weighted deltas and Δ̂ᵢ = Δᵢ/‖Δᵢ‖, the result M minimises
//!
//! > Σ ‖Δ̂ᵢᵀ·(M − Δᵢ)‖² + ρ·‖M − Σ Δᵢ‖²
//!
//! over all matrices of rank k; ρ is the ridge times the mean eigenvalue of S = Σ Δ̂ᵢ·Δ̂ᵢᵀ on the directions
//! that deltas write to. A sum lets every delta spill into the directions that another writes to; here
//! each direction gets what its own delta says, and the sum only where none has much to say. The objective
//! without its ridge is that of WUDI (Cheng et al. 2025, <https://arxiv.org/abs/2503.08099>), which descends
//! it by gradient; it is quadratic, so it is solved, as RegMean solves it with data (Jin et al. 2023,
//! <https://arxiv.org/abs/2212.09849>): S·M = Σ (Δ̂ᵢ·Δ̂ᵢᵀ + ρ)·Δᵢ with S + ρ for S. Its best approximation of
//! rank k is that of (S + ρ)^½·M (reduced-rank regression, Izenman 1975,
//! <https://doi.org/10.1016/0047-259X(75)90042-1>).
//!
//! Both papers look at inputs, Δ̂ᵢᵀ·Δ̂ᵢ, which `--side in` does. A LoRA's `down` begins at random and moves
//! little, its `up` begins at zero and is what training wrote (Zhu et al. 2024,
//! <https://arxiv.org/abs/2402.16842>), so outputs are the default.

use super::params::{LAMBDA, RIDGE, SIDE};
use super::{Combined, Kind, Law, Method, Problem, anything};
use crate::math::linalg::low_rank::orthonormal_basis;
use crate::math::linalg::matrix::{dense_svd, product, product_transposed, transposed_product};
use crate::math::{LowRank, Matrix};

pub(super) static METHOD: Method = Method {
    name: "df-regmean",
    aliases: &["wudi"],
    summary: "for each direction follow the delta that uses it; the sum where none does",
    source: "https://arxiv.org/abs/2503.08099",
    takes: &[SIDE, RIDGE, LAMBDA],
    peers: &[],
    keeps_factors: false,
    laws: &[Law::Identity, Law::Negation, Law::Permutation, Law::Scale],
    check: anything,
    kind: Kind::Core(combine),
};

fn combine(problem: &Problem) -> Combined {
    let ridge = problem.settings.number(&RIDGE);
    let turned = problem.settings.word(&SIDE) == "in";
    let mut deltas = problem.deltas();
    let (mut rows, mut columns) = (problem.rows, problem.columns);
    if turned {
        deltas = deltas.iter().map(LowRank::transposed).collect();
        (rows, columns) = (columns, rows);
    }
    deltas.retain(|delta| delta.squared_norm() > 0.0);
    if deltas.is_empty() {
        return Combined { factors: LowRank::zero(problem.rows, problem.columns), scale: 1.0 };
    }
    let merged = regressed(rows, columns, &deltas, ridge, problem.rank.unwrap_or(usize::MAX));
    Combined { factors: if turned { merged.transposed() } else { merged }, scale: 1.0 }
}

/// The minimiser over matrices of a rank, for deltas that are not zero.
fn regressed(rows: usize, columns: usize, deltas: &[LowRank], ridge: f64, rank: usize) -> LowRank {
    // Each at length 1, so that a quiet delta's directions are not lost beside a loud one's.
    let unit: Vec<LowRank> = deltas.iter().map(unit).collect();
    let basis = orthonormal_basis(LowRank::sum(rows, columns, &unit).up);
    let width = basis.ncols();
    let rho = ridge * deltas.len() as f64 / width as f64;
    let mut pull = Matrix::identity(width, width) * rho;
    let mut pulled = Vec::new();
    for (delta, unit) in deltas.iter().zip(&unit) {
        let up = transposed_product(&basis, &unit.up);
        let gram = product(&product(&up, &product_transposed(&unit.down, &unit.down)), &up.transpose());
        let up = transposed_product(&basis, &delta.up);
        pulled.push(LowRank::new(product(&gram, &up) + up * rho, delta.down.clone()));
        pull += gram;
    }
    let LowRank { up, down } = LowRank::sum(width, columns, &pulled);
    // (S + ρ)^½·M is (S + ρ)^-½ times the right side; cut there, M loses least of what counts.
    let root = inverse_root(&pull);
    let svd = LowRank::new(product(&root, &up), down).svd();
    let LowRank { up, down } = svd.truncate(rank.min(svd.numerical_rank()));
    LowRank::new(product(&basis, &product(&root, &up)), down)
}

/// A delta divided by its length, in no more directions than it has, however many factors it is stored in.
fn unit(delta: &LowRank) -> LowRank {
    let share = delta.squared_norm().powf(-0.25);
    let svd = LowRank::new(&delta.up * share, &delta.down * share).svd();
    svd.truncate(svd.numerical_rank())
}

/// S^-½ of a symmetric positive definite matrix.
fn inverse_root(matrix: &Matrix) -> Matrix {
    let (vectors, values, _) = dense_svd(matrix);
    let mut shares = vectors.clone();
    for (at, value) in values.iter().enumerate() {
        shares.column_mut(at).scale_mut(value.sqrt().recip());
    }
    product_transposed(&shares, &vectors)
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::super::Weighted;
    use super::*;

    fn outer(up: [f64; 3], down: [f64; 3]) -> Weighted {
        let factors = LowRank::new(Matrix::from_row_slice(3, 1, &up), Matrix::from_row_slice(1, 3, &down));
        Weighted { factors, scale: 1.0, weight: 1.0, adapter: 0 }
    }

    fn merged(inputs: &[Weighted], given: &[(&str, &str)], rank: Option<usize>) -> Matrix {
        let given = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let settings = Settings::new("df-regmean", METHOD.takes, &given, 2).unwrap_or_default();
        let weights = [1.0, 1.0];
        let (rows, columns) = (3, 3);
        let problem =
            Problem { rows, columns, inputs, weights: &weights, settings: &settings, compat: None, rank };
        combine(&problem).factors.dense()
    }

    #[test]
    fn what_each_writes_is_what_it_wrote_alone() {
        let pair = [outer([1.0, 0.0, 0.0], [2.0, 1.0, 0.0]), outer([0.6, 0.8, 0.0], [0.0, 0.0, 3.0])];
        let result = merged(&pair, &[("ridge", "1e-9")], None);
        for input in &pair {
            let directions = input.factors.up.transpose();
            let said = &directions * input.factors.dense();
            assert!((&directions * &result - said).norm() < 1e-7);
        }
        let sum = pair[0].factors.dense() + pair[1].factors.dense();
        assert!((merged(&pair, &[("ridge", "1e12")], None) - &sum).norm() < 1e-7);
        assert!((&result - sum).norm() > 0.5, "the sum spills");
    }

    #[test]
    fn the_same_delta_twice_is_one() {
        let twice = [outer([1.0, 2.0, 0.0], [2.0, 1.0, 0.0]), outer([1.0, 2.0, 0.0], [2.0, 1.0, 0.0])];
        let result = merged(&twice, &[("ridge", "1e-9"), ("side", "in")], Some(1));
        assert!((result - twice[0].factors.dense()).norm() < 1e-6);
    }
}
