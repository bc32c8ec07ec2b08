//! Directions that many low-rank matrices share: U (m × K) and V (n × K), orthonormal, such that Σ wᵢ·‖Uᵀ·Δᵢ·V‖² is
//! the most (Ye 2005, "Generalized low rank approximations of matrices"; the full joint diagonalisation of
//! Brüel-Gabrielsson et al. 2024, arXiv 2407.00066). Δᵢ is then nearest to U·Σᵢ·Vᵀ with Σᵢ = Uᵀ·Δᵢ·V.
//!
//! The best U for a V are the leading eigenvectors of Σ wᵢ·Δᵢ·V·Vᵀ·Δᵢᵀ, and the reverse. Neither that matrix nor the
//! stack of all factors is ever held: a pass adds what each Δᵢ makes of the present directions to [`Sums`], in
//! O((m + n)·r·K), and a step of subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4) makes the next
//! directions of the sums. Some more directions than K are carried along, which makes the first K converge sooner.
//!
//! Only Δᵢ = Bᵢ·Aᵢ goes in, never Bᵢ or Aᵢ alone: factors B·G and G⁻¹·A give the same.

use super::low_rank::LowRank;
use super::matrix::{
    Matrix, add_product, add_transposed_product, product, product_transposed, transposed_product,
};
use crate::math::elements::random::Stream;

/// Directions that are carried along beyond those that are asked for, at least.
const OVERSAMPLING: usize = 8;

/// Shared directions of matrices of m × n.
#[derive(Debug, Clone, PartialEq)]
pub struct Directions {
    /// m × L, orthonormal; the first `rank` columns are U.
    left: Matrix,
    /// n × L', orthonormal; the first `rank` columns are V.
    right: Matrix,
    /// K, at most m and n.
    rank: usize,
}

/// Which matrices the next directions are eigenvectors of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Σ w·Δ·Δᵀ and Σ w·Δᵀ·Δ, each side by itself.
    Apart,
    /// Σ w·Δ·V·Vᵀ·Δᵀ and Σ w·Δᵀ·U·Uᵀ·Δ: each side for the other.
    Together,
}

impl Directions {
    /// Random ones, `rank` of them or as many as there are.
    pub fn random(rows: usize, columns: usize, rank: usize, stream: Stream) -> Self {
        let rank = rank.min(rows).min(columns);
        let width = rank + OVERSAMPLING.max(rank / 8);
        let side = |size: usize, first: u64| {
            let width = width.min(size);
            let element = |row: usize, column: usize| first + (column * size + row) as u64;
            let drawn =
                Matrix::from_fn(size, width, |row, column| stream.gaussian(element(row, column)));
            columns_of(drawn)
        };
        Self { left: side(rows, 0), right: side(columns, 1 << 40), rank }
    }

    /// U, m × K.
    pub fn left(&self) -> Matrix {
        self.left.columns(0, self.rank).clone_owned()
    }

    /// V, n × K.
    pub fn right(&self) -> Matrix {
        self.right.columns(0, self.rank).clone_owned()
    }

    /// A matrix as it is seen from the directions.
    ///
    /// # Panics
    /// If it has another shape.
    #[track_caller]
    pub fn see(&self, delta: &LowRank) -> Seen {
        let up = transposed_product(&delta.up, &self.left);
        let down = product(&delta.down, &self.right);
        let gram = |seen: &Matrix| {
            let first = seen.columns(0, self.rank).clone_owned();
            product_transposed(&first, &first)
        };
        Seen { up_gram: gram(&up), down_gram: gram(&down), up, down }
    }
}

/// See [`Directions::see`].
#[derive(Debug, Clone)]
pub struct Seen {
    /// Bᵀ·(all left directions), r × L.
    up: Matrix,
    /// A·(all right directions), r × L'.
    down: Matrix,
    /// Bᵀ·U·Uᵀ·B, r × r.
    up_gram: Matrix,
    /// A·V·Vᵀ·Aᵀ, r × r.
    down_gram: Matrix,
}

impl Seen {
    /// ‖Uᵀ·Δ·V‖².
    pub fn both_sides(&self) -> f64 {
        self.up_gram.component_mul(&self.down_gram).sum()
    }

    /// ‖Δ·V‖².
    pub fn right_side(&self, delta: &LowRank) -> f64 {
        transposed_product(&delta.up, &delta.up).component_mul(&self.down_gram).sum()
    }
}

/// What a pass over the matrices has added up.
#[derive(Debug, Clone)]
pub struct Sums {
    left: Matrix,
    right: Matrix,
    rank: usize,
}

impl Sums {
    /// Nothing yet, for a pass that starts from these directions.
    pub fn new(directions: &Directions) -> Self {
        let zeros = |like: &Matrix| Matrix::zeros(like.nrows(), like.ncols());
        Self {
            left: zeros(&directions.left),
            right: zeros(&directions.right),
            rank: directions.rank,
        }
    }

    /// Adds a matrix, weighted, as the directions see it.
    ///
    /// # Panics
    /// If it has another shape.
    #[track_caller]
    pub fn add(&mut self, delta: &LowRank, seen: &Seen, weight: f64, step: Step) {
        // The Gram matrices stand between the factor of one side and what the directions see of it.
        let (down_gram, up_gram) = match step {
            Step::Apart => (
                product_transposed(&delta.down, &delta.down),
                transposed_product(&delta.up, &delta.up),
            ),
            Step::Together => (seen.down_gram.clone(), seen.up_gram.clone()),
        };
        add_product(&mut self.left, &delta.up, &(product(&down_gram, &seen.up) * weight));
        let right = product(&up_gram, &seen.down) * weight;
        add_transposed_product(&mut self.right, &delta.down, &right);
    }

    /// The next directions; none if nothing was added but zeros.
    pub fn directions(self) -> Option<Directions> {
        if self.left.iter().chain(self.right.iter()).all(|value| *value == 0.0) {
            return None;
        }
        let (left, right) = (columns_of(self.left), columns_of(self.right));
        Some(Directions { left, right, rank: self.rank })
    }
}

/// As many orthonormal columns, those that the columns fill the most first.
fn columns_of(columns: Matrix) -> Matrix {
    let width = columns.ncols();
    LowRank::new(columns, Matrix::identity(width, width)).svd().vectors(width).0
}
