//! Matrices made of two smaller ones: Hadamard and Kronecker products, kept as their parts.
//!
//! Both have an exact factorisation. Of A = A₁·A₂ and B = B₁·B₂ with ranks r and s, A ⊙ B is the
//! face-splitting product of A₁ and B₁ times the column-wise Kronecker product of A₂ and B₂, of rank
//! r·s (Slyusar 1999, <https://doi.org/10.1007/BF02733426>), and A ⊗ B is (A₁ ⊗ B₁)·(A₂ ⊗ B₂), also of
//! rank r·s (Van Loan 2000, <https://doi.org/10.1016/S0377-0427(00)00393-9>).

use crate::math::kernel::factor::Factor;
use crate::math::linalg::low_rank::LowRank;
use crate::math::linalg::matrix::Matrix;

/// One of the two matrices of a composite.
#[derive(Debug, Clone)]
pub enum Operand {
    /// All its elements.
    Dense(Factor),
    /// Its factors.
    LowRank(LowRank),
}

impl Operand {
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Dense(factor) => (factor.rows, factor.columns),
            Self::LowRank(matrix) => (matrix.rows(), matrix.columns()),
        }
    }

    /// The rank its factorisation has: of a dense part, the smaller side.
    pub fn rank(&self) -> usize {
        match self {
            Self::Dense(factor) => factor.rows.min(factor.columns),
            Self::LowRank(matrix) => matrix.rank(),
        }
    }

    fn matrix(&self) -> Matrix {
        match self {
            Self::Dense(factor) => {
                let values = factor.values.iter().map(|value| f64::from(*value));
                Matrix::from_row_iterator(factor.rows, factor.columns, values)
            }
            // Plain loops: a merge's bytes must not depend on the machine's instructions.
            Self::LowRank(matrix) => {
                let up = matrix.up.transpose();
                Matrix::from_fn(matrix.rows(), matrix.columns(), |row, column| {
                    up.column(row).dot(&matrix.down.column(column))
                })
            }
        }
    }

    /// As factors; of a dense part, the smaller side is the identity.
    fn low_rank(&self) -> LowRank {
        match self {
            Self::LowRank(matrix) => matrix.clone(),
            Self::Dense(_) => beside_identity(self.matrix()),
        }
    }

    fn transposed(&self) -> Self {
        match self {
            Self::Dense(factor) => Self::Dense(factor.transposed()),
            Self::LowRank(matrix) => Self::LowRank(matrix.transposed()),
        }
    }
}

/// A matrix as factors: itself, and an identity on its smaller side.
fn beside_identity(matrix: Matrix) -> LowRank {
    let (rows, columns) = matrix.shape();
    if rows <= columns {
        LowRank::new(Matrix::identity(rows, rows), matrix)
    } else {
        LowRank::new(matrix, Matrix::identity(columns, columns))
    }
}

/// How the parts are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joint {
    /// A ⊙ B, element by element; both have the same shape.
    Hadamard,
    /// A ⊗ B: block (i, j) is aᵢⱼ·B.
    Kronecker,
}

/// A ⊙ B or A ⊗ B.
#[derive(Debug, Clone)]
pub struct Composite {
    joint: Joint,
    parts: [Operand; 2],
}

impl Composite {
    /// From its parts.
    ///
    /// # Panics
    /// If the parts of a Hadamard product have different shapes.
    #[track_caller]
    pub fn new(joint: Joint, a: Operand, b: Operand) -> Self {
        assert!(joint == Joint::Kronecker || a.size() == b.size(), "shapes of a Hadamard product");
        Self { joint, parts: [a, b] }
    }

    /// (rows, columns).
    pub fn size(&self) -> (usize, usize) {
        let [a, b] = self.parts.each_ref().map(Operand::size);
        match self.joint {
            Joint::Hadamard => a,
            Joint::Kronecker => (a.0 * b.0, a.1 * b.1),
        }
    }

    /// Rank of [`Composite::low_rank`]: the product of the parts', or the smaller side if that is
    /// less.
    pub fn rank(&self) -> usize {
        let ([a, b], (rows, columns)) = (&self.parts, self.size());
        (a.rank() * b.rank()).min(rows).min(columns)
    }

    /// Its exact factorisation; where that would be larger than the matrix, the matrix itself and an
    /// identity.
    pub fn low_rank(&self) -> LowRank {
        let (rows, columns) = self.size();
        let [a, b] = self.parts.each_ref().map(Operand::rank);
        if a * b <= rows.min(columns) {
            return self.factored();
        }
        let made = self.rows();
        let mut values = vec![0.0; rows * columns];
        made.add_to(&mut values, columns, 0, 1.0);
        beside_identity(Matrix::from_row_slice(rows, columns, &values))
    }

    fn factored(&self) -> LowRank {
        let [a, b] = self.parts.each_ref().map(Operand::low_rank);
        match self.joint {
            Joint::Kronecker => LowRank::new(a.up.kronecker(&b.up), a.down.kronecker(&b.down)),
            Joint::Hadamard => {
                let (a_rank, b_rank) = (a.rank(), b.rank());
                let up = Matrix::from_fn(a.rows(), a_rank * b_rank, |row, level| {
                    a.up[(row, level / b_rank)] * b.up[(row, level % b_rank)]
                });
                let down = Matrix::from_fn(a_rank * b_rank, a.columns(), |level, column| {
                    a.down[(level / b_rank, column)] * b.down[(level % b_rank, column)]
                });
                LowRank::new(up, down)
            }
        }
    }

    /// Rows and columns exchanged.
    #[must_use]
    pub fn transposed(&self) -> Self {
        Self { joint: self.joint, parts: self.parts.each_ref().map(Operand::transposed) }
    }

    /// Ready to give any rows.
    pub fn rows(&self) -> Rows {
        match self.joint {
            // B is out·in / (size of A): small unless A is next to nothing.
            Joint::Kronecker => {
                let [a, b] = self.parts.each_ref().map(|part| part.matrix().transpose());
                Rows { joint: self.joint, parts: [Half::Turned(a), Half::Turned(b)] }
            }
            Joint::Hadamard => {
                let parts = self.parts.each_ref().map(|part| {
                    let matrix = part.low_rank();
                    Half::Factors(matrix.up.transpose(), matrix.down)
                });
                Rows { joint: self.joint, parts }
            }
        }
    }
}

/// A composite that gives rows on demand, so that the whole is never there.
#[derive(Debug, Clone)]
pub struct Rows {
    joint: Joint,
    parts: [Half; 2],
}

/// One part, laid out so that what is read together lies together.
#[derive(Debug, Clone)]
enum Half {
    /// The transpose: a row of the part is a column.
    Turned(Matrix),
    /// The transpose of up, and down.
    Factors(Matrix, Matrix),
}

impl Half {
    fn row(&self, row: usize) -> Vec<f64> {
        match self {
            Self::Turned(turned) => turned.column(row).iter().copied().collect(),
            Self::Factors(up, down) => {
                let up = up.column(row);
                down.column_iter().map(|column| column.dot(&up)).collect()
            }
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::Turned(matrix) | Self::Factors(matrix, _) => matrix.ncols(),
        }
    }
}

impl Rows {
    /// Adds coefficient times rows `first..` to as many rows of `columns` values as `target` has.
    ///
    /// # Panics
    /// If the rows leave the matrix, or have another length.
    #[track_caller]
    pub fn add_to(&self, target: &mut [f64], columns: usize, first: usize, coefficient: f64) {
        let [a, b] = &self.parts;
        for (at, row) in target.chunks_mut(columns.max(1)).enumerate() {
            match self.joint {
                Joint::Hadamard => {
                    let (a, b) = (a.row(first + at), b.row(first + at));
                    assert_eq!(a.len(), row.len(), "columns of a composite");
                    for ((value, a), b) in row.iter_mut().zip(a).zip(b) {
                        *value += coefficient * (a * b);
                    }
                }
                Joint::Kronecker => {
                    let (outer, inner) = ((first + at) / b.rows(), (first + at) % b.rows());
                    let (a, b) = (a.row(outer), b.row(inner));
                    assert_eq!(a.len() * b.len(), row.len(), "columns of a composite");
                    for (part, a) in row.chunks_mut(b.len().max(1)).zip(a) {
                        for (value, b) in part.iter_mut().zip(&b) {
                            *value += coefficient * (a * b);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(seed: &mut u64, count: usize) -> Vec<f32> {
        let step = || {
            *seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((*seed >> 40) as f32) / (1u64 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(step).take(count).collect()
    }

    fn part(seed: &mut u64, rows: usize, columns: usize, rank: usize) -> Operand {
        if rank == 0 {
            return Operand::Dense(Factor::new(rows, columns, random(seed, rows * columns)));
        }
        let up = Factor::new(rows, rank, random(seed, rows * rank));
        let down = Factor::new(rank, columns, random(seed, rank * columns));
        Operand::LowRank(LowRank::from_factors(&up, &down, 1.0))
    }

    fn check(composite: &Composite, expected: &Matrix) {
        let size = expected.amax().max(1.0) * 1e-12;
        let factors = composite.low_rank();
        assert_eq!(factors.rank(), composite.rank());
        assert!((factors.dense() - expected).amax() <= size);
        assert!((composite.transposed().low_rank().dense() - expected.transpose()).amax() <= size);
        let (rows, columns) = expected.shape();
        let made = composite.rows();
        for first in 0..rows {
            let mut target = vec![1.0; (rows - first).min(2) * columns];
            made.add_to(&mut target, columns, first, -2.0);
            for (at, value) in target.iter().enumerate() {
                let want = 1.0 - 2.0 * expected[(first + at / columns, at % columns)];
                assert!((value - want).abs() <= 4.0 * size, "{value} {want}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn all_forms_are_the_product(
            a in (1usize..6, 1usize..6, 0usize..4), b in (1usize..6, 1usize..6, 0usize..4), seed: u64,
        ) {
            let mut seed = seed;
            let first = part(&mut seed, a.0, a.1, a.2);
            let second = part(&mut seed, b.0, b.1, b.2);
            let expected = first.matrix().kronecker(&second.matrix());
            check(&Composite::new(Joint::Kronecker, first.clone(), second), &expected);
            let second = part(&mut seed, a.0, a.1, b.2);
            let expected = first.matrix().component_mul(&second.matrix());
            check(&Composite::new(Joint::Hadamard, first, second), &expected);
        }
    }
}
