//! Matrices of any rank that are never formed: single elements, circulant blocks, and sums with factors. They give
//! rows on demand.

use std::ops::Range;

use crate::math::linalg::low_rank::LowRank;

/// A matrix that gives its rows.
#[derive(Debug, Clone)]
pub enum RowMatrix {
    /// Single elements.
    Sparse(Sparse),
    /// Circulant blocks.
    Circulant(Circulant),
    /// Factors.
    LowRank(LowRank),
    /// A sum of matrices of one size.
    Sum(Vec<Self>),
}

impl RowMatrix {
    /// Rows and columns exchanged.
    #[must_use]
    pub fn transposed(&self) -> Self {
        match self {
            Self::Sparse(matrix) => Self::Sparse(matrix.transposed()),
            Self::Circulant(matrix) => Self::Circulant(matrix.transposed()),
            Self::LowRank(matrix) => Self::LowRank(matrix.transposed()),
            Self::Sum(parts) => Self::Sum(parts.iter().map(Self::transposed).collect()),
        }
    }

    /// Adds coefficient times rows `first..` to as many rows of `columns` values as `target` has.
    pub fn add_to(&self, target: &mut [f64], columns: usize, first: usize, coefficient: f64) {
        for (at, target) in target.chunks_mut(columns.max(1)).enumerate() {
            self.add_row(target, first + at, coefficient);
        }
    }

    fn add_row(&self, target: &mut [f64], row: usize, coefficient: f64) {
        match self {
            Self::Sparse(matrix) => matrix.add_row(target, row, coefficient),
            Self::Circulant(matrix) => matrix.add_row(target, row, coefficient),
            Self::LowRank(matrix) => {
                let up = matrix.up.row(row);
                for (value, down) in target.iter_mut().zip(matrix.down.column_iter()) {
                    let sum: f64 = up.iter().zip(down.iter()).map(|(up, down)| up * down).sum();
                    *value += coefficient * sum;
                }
            }
            Self::Sum(parts) => {
                for part in parts {
                    part.add_row(target, row, coefficient);
                }
            }
        }
    }
}

/// One element: its row, its column, its value.
pub type Element = (u32, u32, f64);

/// Single elements, zeros elsewhere. Elements of one place add up.
#[derive(Debug, Clone)]
pub struct Sparse {
    /// By rows, in each by columns.
    elements: Vec<Element>,
}

impl Sparse {
    /// From elements in any order.
    pub fn new(mut elements: Vec<Element>) -> Self {
        // Stable, so that elements of one place add up in the order given.
        elements.sort_by_key(|(row, column, _)| (*row, *column));
        Self { elements }
    }

    fn transposed(&self) -> Self {
        Self::new(self.elements.iter().map(|(row, column, v)| (*column, *row, *v)).collect())
    }

    fn within(&self, row: usize) -> Range<usize> {
        let before =
            |row: usize| self.elements.partition_point(|element| (element.0 as usize) < row);
        before(row)..before(row + 1)
    }

    fn add_row(&self, target: &mut [f64], row: usize, coefficient: f64) {
        for (_, column, value) in self.elements.get(self.within(row)).unwrap_or_default() {
            if let Some(slot) = target.get_mut(*column as usize) {
                *slot += coefficient * value;
            }
        }
    }
}

/// Square blocks side by side, each of whose rows is the one above it, one place further to the right.
#[derive(Debug, Clone)]
pub struct Circulant {
    /// The first rows of the blocks, block by block along the rows of blocks.
    heads: Vec<f64>,
    /// Blocks beside each other.
    across: usize,
    size: usize,
}

impl Circulant {
    /// From the blocks' first rows, `across` blocks of `size` beside each other.
    pub fn new(heads: Vec<f64>, across: usize, size: usize) -> Self {
        Self { heads, across, size }
    }

    fn transposed(&self) -> Self {
        let (across, size) = (self.across, self.size);
        let down = self.heads.len() / (across * size).max(1);
        let mut heads = Vec::with_capacity(self.heads.len());
        for column in 0..across {
            for row in 0..down {
                let head = self.head(row, column);
                // A block's first column is its first row, read backwards.
                heads.extend((0..size).map(|at| head.get((size - at) % size).unwrap_or(&0.0)));
            }
        }
        Self { heads, across: down, size }
    }

    fn head(&self, row: usize, column: usize) -> &[f64] {
        let from = (row * self.across + column) * self.size;
        self.heads.get(from..from + self.size).unwrap_or_default()
    }

    fn add_row(&self, target: &mut [f64], row: usize, coefficient: f64) {
        let (block, turn) = (row / self.size.max(1), row % self.size.max(1));
        for (column, target) in target.chunks_mut(self.size.max(1)).enumerate() {
            let (start, end) = self.head(block, column).split_at(self.size - turn);
            for (value, head) in target.iter_mut().zip(end.iter().chain(start)) {
                *value += coefficient * head;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::Matrix;

    /// All rows of a matrix, twice, one after another or together.
    fn rows(matrix: &RowMatrix, (rows, columns): (usize, usize)) -> Vec<f64> {
        let mut together = vec![1.0; rows * columns];
        matrix.add_to(&mut together, columns, 0, 2.0);
        let mut single = vec![1.0; rows * columns];
        for (at, row) in single.chunks_mut(columns).enumerate() {
            matrix.add_to(row, columns, at, 2.0);
        }
        assert_eq!(together, single);
        together.iter().map(|value| (value - 1.0) / 2.0).collect()
    }

    fn check(matrix: &RowMatrix, expected: &[&[f64]]) {
        let size = (expected.len(), expected[0].len());
        assert_eq!(rows(matrix, size), expected.concat());
        let turned: Vec<f64> =
            (0..size.1).flat_map(|at| expected.iter().map(move |row| row[at])).collect();
        assert_eq!(rows(&matrix.transposed(), (size.1, size.0)), turned);
    }

    #[test]
    fn elements_of_one_place_add_up() {
        let sparse = Sparse::new(vec![(1, 2, 3.0), (0, 1, 1.0), (1, 2, 4.0), (1, 0, 5.0)]);
        let sparse = RowMatrix::Sparse(sparse);
        check(&sparse, &[&[0.0, 1.0, 0.0], &[5.0, 0.0, 7.0], &[0.0; 3]]);
        let factors =
            LowRank::new(Matrix::from_element(3, 1, 1.0), Matrix::from_element(1, 3, 2.0));
        let sum = RowMatrix::Sum(vec![sparse, RowMatrix::LowRank(factors)]);
        check(&sum, &[&[2.0, 3.0, 2.0], &[7.0, 2.0, 9.0], &[2.0; 3]]);
    }

    #[test]
    fn circulant_blocks_turn_row_by_row() {
        let heads = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let blocks = RowMatrix::Circulant(Circulant::new(heads, 2, 3));
        check(
            &blocks,
            &[
                &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
                &[3.0, 1.0, 2.0, 6.0, 4.0, 5.0],
                &[2.0, 3.0, 1.0, 5.0, 6.0, 4.0],
            ],
        );
    }
}
