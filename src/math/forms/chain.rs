//! A square matrix as a product of sparse ones: rotations in blocks, butterflies, reflections, scaled
//! axes. It is never formed; rows are sent through it one after another.

use crate::math::linalg::low_rank::LowRank;
use crate::math::linalg::matrix::Matrix;

/// One factor of a chain.
#[derive(Debug, Clone)]
pub enum Stage {
    /// A diagonal matrix.
    Diagonal(Vec<f64>),
    /// Pᵀ·D·P: D has these square blocks of one size on its diagonal, P puts element `order[i]` at i.
    Blocks {
        /// The blocks, by rows.
        blocks: Vec<Matrix>,
        /// Where each element of the permuted vector is from; the identity if none.
        order: Option<Vec<usize>>,
    },
    /// I − 2·u·uᵀ, with ‖u‖ = 1 (Householder).
    Reflection(Vec<f64>),
    /// (I + up·down) ⊗ I over a kernel: of every `kernel` neighbours the first go through I + up·down,
    /// then the second ones, and so on.
    Plus {
        /// up · down.
        matrix: LowRank,
        /// How many neighbours; 1 for no kernel.
        kernel: usize,
    },
}

impl Stage {
    fn transposed(&self) -> Self {
        match self {
            Self::Diagonal(_) | Self::Reflection(_) => self.clone(),
            Self::Blocks { blocks, order } => Self::Blocks {
                blocks: blocks.iter().map(Matrix::transpose).collect(),
                order: order.clone(),
            },
            Self::Plus { matrix, kernel } => {
                Self::Plus { matrix: matrix.transposed(), kernel: *kernel }
            }
        }
    }

    /// x ← x · stage for every row x of `columns` values.
    fn apply(&self, rows: &mut [f64], columns: usize) {
        let rows = rows.chunks_mut(columns.max(1));
        match self {
            Self::Diagonal(values) => {
                for row in rows {
                    for (x, value) in row.iter_mut().zip(values) {
                        *x *= value;
                    }
                }
            }
            Self::Reflection(u) => {
                for row in rows {
                    let twice = 2.0 * row.iter().zip(u).map(|(x, u)| x * u).sum::<f64>();
                    for (x, u) in row.iter_mut().zip(u) {
                        *x -= twice * u;
                    }
                }
            }
            Self::Plus { matrix, kernel } => {
                for row in rows {
                    add_product(row, matrix, *kernel);
                }
            }
            Self::Blocks { blocks, order } => turn_blocks(rows, blocks, order.as_deref()),
        }
    }

    /// up · down, if the stage is I + up · down of few directions.
    fn low_rank(&self) -> Option<LowRank> {
        match self {
            Self::Plus { matrix, kernel: 1 } => Some(matrix.clone()),
            Self::Reflection(u) => {
                let up = Matrix::from_column_slice(u.len(), 1, u);
                Some(LowRank::new(&up * -2.0, up.transpose()))
            }
            Self::Plus { .. } | Self::Diagonal(_) | Self::Blocks { .. } => None,
        }
    }
}

/// x ← x + x · (up · down), in turn for the first, the second, … of every `kernel` neighbours.
fn add_product(x: &mut [f64], matrix: &LowRank, kernel: usize) {
    for position in 0..kernel {
        let neighbours = || x.iter().skip(position).step_by(kernel);
        let ups = matrix.up.column_iter();
        let inner: Vec<f64> =
            ups.map(|up| neighbours().zip(up.iter()).map(|(x, up)| x * up).sum()).collect();
        let neighbours = x.iter_mut().skip(position).step_by(kernel);
        for (x, down) in neighbours.zip(matrix.down.column_iter()) {
            *x += dot(&inner, down.iter());
        }
    }
}

/// Every row times a matrix of blocks on the diagonal, its elements read and written in an order.
fn turn_blocks<'a>(
    rows: impl Iterator<Item = &'a mut [f64]>,
    blocks: &[Matrix],
    order: Option<&[usize]>,
) {
    // Rows of a block lie together in the columns of its transpose, so that a row's sums grow side by side.
    let turned: Vec<Matrix> = blocks.iter().map(Matrix::transpose).collect();
    let read = |at: usize| order.map_or(at, |order| order[at]);
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for x in rows {
        let mut first = 0;
        for block in &turned {
            let size = block.nrows();
            old.clear();
            old.extend((first..first + size).map(|at| x[read(at)]));
            // A vector of zeros stays one: most of a unit vector's blocks.
            if old.iter().any(|value| *value != 0.0) {
                new.clear();
                new.resize(size, 0.0);
                for (share, row) in old.iter().zip(block.column_iter()) {
                    for (sum, value) in new.iter_mut().zip(row.as_slice()) {
                        *sum += share * value;
                    }
                }
                for (at, value) in new.iter().enumerate() {
                    x[read(first + at)] = *value;
                }
            }
            first += size;
        }
    }
}

fn dot<'a>(x: &[f64], y: impl Iterator<Item = &'a f64>) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// S₁·S₂·…, the identity if there are none.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    stages: Vec<Stage>,
}

impl Chain {
    /// From its factors, left to right.
    pub fn new(stages: Vec<Stage>) -> Self {
        Self { stages }
    }

    /// Whether it changes nothing.
    pub fn is_identity(&self) -> bool {
        self.stages.is_empty()
    }

    /// The transposed matrix.
    #[must_use]
    pub fn transposed(&self) -> Self {
        Self { stages: self.stages.iter().rev().map(Stage::transposed).collect() }
    }

    /// x ← x · chain for every row x of `columns` values.
    ///
    /// # Panics
    /// If blocks reach beyond the columns.
    #[track_caller]
    pub fn apply(&self, rows: &mut [f64], columns: usize) {
        for stage in &self.stages {
            stage.apply(rows, columns);
        }
    }

    /// up · down, if the chain is I + up · down: made of reflections and of sums with factors. None for the identity.
    pub fn low_rank(&self) -> Option<LowRank> {
        let mut stages = self.stages.iter().map(Stage::low_rank);
        let first = stages.next()??;
        // (I + U·D)·(I + u·d) = I + U·(D + (D·u)·d) + u·d
        stages.try_fold(first, |all, stage| {
            let stage = stage?;
            let below = &all.down + (&all.down * &stage.up) * &stage.down;
            let before = LowRank::new(all.up, below);
            Some(LowRank::sum(before.rows(), before.columns(), &[before, stage]))
        })
    }

    /// Rows `first..first + count` of the chain as a matrix of `size` columns.
    #[track_caller]
    pub fn rows(&self, first: usize, count: usize, size: usize) -> Vec<f64> {
        let mut rows = vec![0.0; count * size];
        for (at, row) in rows.chunks_mut(size.max(1)).enumerate() {
            row[first + at] = 1.0;
        }
        self.apply(&mut rows, size);
        rows
    }
}

/// (I − Q)·(I + Q)⁻¹, the Cayley transform: a rotation if Q = −Qᵀ. Not finite where f64 finds I + Q
/// singular, which takes elements beyond all measure.
pub fn cayley(q: &Matrix) -> Matrix {
    let identity = Matrix::identity(q.nrows(), q.nrows());
    // X·(I + Q) = I − Q, as (I + Q)ᵀ·Xᵀ = (I − Q)ᵀ.
    let solved = (&identity + q).transpose().lu().solve(&(&identity - q).transpose());
    match solved {
        Some(turned) => turned.transpose(),
        None => Matrix::from_element(q.nrows(), q.nrows(), f64::NAN),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(seed: &mut u64, rows: usize, columns: usize) -> Matrix {
        Matrix::from_fn(rows, columns, |_, _| {
            *seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (*seed >> 33) as f64 / f64::from(1u32 << 30) - 1.0
        })
    }

    fn plus(channels: usize, kernel: usize, seed: &mut u64) -> Stage {
        let (up, down) = (random(seed, channels, 2), random(seed, 2, channels));
        Stage::Plus { matrix: LowRank::new(up, down), kernel }
    }

    fn dense(stage: &Stage, size: usize) -> Matrix {
        match stage {
            Stage::Diagonal(values) => Matrix::from_diagonal(&values.clone().into()),
            Stage::Reflection(u) => {
                let u = Matrix::from_column_slice(size, 1, u);
                Matrix::identity(size, size) - &u * u.transpose() * 2.0
            }
            Stage::Plus { matrix, kernel } => {
                let channels = size / kernel;
                (Matrix::identity(channels, channels) + matrix.dense())
                    .kronecker(&Matrix::identity(*kernel, *kernel))
            }
            Stage::Blocks { blocks, order } => {
                let mut diagonal = Matrix::zeros(size, size);
                let mut at = 0;
                for block in blocks {
                    diagonal.view_mut((at, at), block.shape()).copy_from(block);
                    at += block.nrows();
                }
                let order = order.clone().unwrap_or_else(|| (0..size).collect());
                let p = Matrix::from_fn(size, size, |row, column| {
                    f64::from(u8::from(order[row] == column))
                });
                p.transpose() * diagonal * p
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rows_go_through_the_product(
            block in 1usize..4, count in 1usize..4, turn in 0usize..12, seed: u64,
        ) {
            let mut seed = seed;
            let size = block * count;
            let blocks: Vec<Matrix> = (0..count).map(|_| random(&mut seed, block, block)).collect();
            let order: Vec<usize> = (0..size).map(|at| (at + turn) % size).collect();
            let u = random(&mut seed, size, 1);
            let u = (&u / u.norm()).as_slice().to_vec();
            let stages = vec![
                Stage::Diagonal(random(&mut seed, size, 1).as_slice().to_vec()),
                Stage::Blocks { blocks: blocks.clone(), order: None },
                Stage::Reflection(u),
                plus(size, 1, &mut seed),
                plus(count, block, &mut seed),
                Stage::Blocks { blocks, order: Some(order) },
            ];
            let expected = stages.iter().map(|stage| dense(stage, size));
            let expected = expected.fold(Matrix::identity(size, size), |all, stage| all * stage);
            let chain = Chain::new(stages);
            let close = |a: &Matrix, b: &Matrix| (a - b).amax() <= 1e-12 * (1.0 + b.amax());
            let rows = Matrix::from_row_slice(size, size, &chain.rows(0, size, size));
            prop_assert!(close(&rows, &expected));
            let turned = chain.transposed().rows(0, size, size);
            prop_assert!(close(&Matrix::from_row_slice(size, size, &turned), &expected.transpose()));
        }

        #[test]
        fn reflections_and_sums_are_the_identity_and_factors(size in 1usize..9, count in 1usize..5, seed: u64) {
            let mut seed = seed;
            let stages: Vec<Stage> = (0..count)
                .map(|at| match at % 2 {
                    0 => plus(size, 1, &mut seed),
                    _ => {
                        let u = random(&mut seed, size, 1);
                        Stage::Reflection((&u / u.norm()).as_slice().to_vec())
                    }
                })
                .collect();
            let chain = Chain::new(stages.clone());
            let expected = Matrix::from_row_slice(size, size, &chain.rows(0, size, size));
            let found = chain.low_rank().expect("factors");
            prop_assert_eq!(found.rank(), (0..count).map(|at| 2 - at % 2).sum::<usize>());
            let found = Matrix::identity(size, size) + found.dense();
            prop_assert!((found - &expected).amax() <= 1e-12 * (1.0 + expected.amax()));
            for beyond in [Stage::Diagonal(vec![1.0; size]), plus(1, size + 1, &mut seed)] {
                prop_assert!(Chain::new([stages.clone(), vec![beyond]].concat()).low_rank().is_none());
            }
            prop_assert!(Chain::default().low_rank().is_none());
        }

        #[test]
        fn the_cayley_transform_is_a_rotation(size in 1usize..7, seed: u64) {
            let mut seed = seed;
            let q = random(&mut seed, size, size);
            let q = &q - q.transpose();
            let identity = Matrix::identity(size, size);
            let r = cayley(&q);
            prop_assert!((&r * r.transpose() - &identity).amax() < 1e-12);
            prop_assert!((&r * (&identity + &q) - (&identity - &q)).amax() < 1e-12);
        }
    }
}
