//! Factors of low-rank updates, packed for the merge kernel.
//!
//! A tensor's update is left · right, left: rows × depth, right: depth × columns, where depth is the
//! sum of the ranks of everything merged into it. Scales are folded into left, in f64, before it is
//! rounded to f32.

/// Columns that a packed right factor keeps together.
pub const BLOCK: usize = 64;

/// Rows that the kernel computes together.
pub const ROWS: usize = 4;

/// A dense factor in row-major order, as f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Factor {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// rows × columns values, row by row.
    pub values: Vec<f32>,
}

impl Factor {
    /// A factor from its values.
    ///
    /// # Panics
    /// If there are not rows × columns values.
    #[track_caller]
    pub fn new(rows: usize, columns: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), rows * columns, "{rows} × {columns} factor");
        Self { rows, columns, values }
    }

    /// Rows and columns exchanged.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let mut values = Vec::with_capacity(self.values.len());
        for column in 0..self.columns {
            values.extend(self.values.iter().skip(column).step_by(self.columns.max(1)));
        }
        Self { rows: self.columns, columns: self.rows, values }
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..][..self.columns]
    }
}

/// The right factors of a tensor's update, one under another: for each block of [`BLOCK`] columns,
/// `depth` rows of it, the last block filled up with zeros.
#[derive(Debug, Clone)]
pub struct PackedRight {
    depth: usize,
    columns: usize,
    blocks: Vec<[f32; BLOCK]>,
}

impl PackedRight {
    /// Packs factors of rᵢ × columns each; depth is Σ rᵢ.
    ///
    /// # Panics
    /// If a factor has another number of columns.
    #[track_caller]
    pub fn new(columns: usize, factors: &[Factor]) -> Self {
        let depth: usize = factors.iter().map(|factor| factor.rows).sum();
        let mut blocks = vec![[0f32; BLOCK]; columns.div_ceil(BLOCK) * depth];
        let mut level = 0;
        for factor in factors {
            assert_eq!(factor.columns, columns, "columns of a right factor");
            for row in 0..factor.rows {
                for (block, part) in factor.row(row).chunks(BLOCK).enumerate() {
                    blocks[block * depth + level][..part.len()].copy_from_slice(part);
                }
                level += 1;
            }
        }
        Self { depth, columns, blocks }
    }

    /// Sum of the ranks.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Columns of the product.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Blocks of columns.
    pub fn block_count(&self) -> usize {
        self.columns.div_ceil(BLOCK)
    }

    /// The `depth` rows of one block of columns.
    pub fn block(&self, block: usize) -> &[[f32; BLOCK]] {
        &self.blocks[block * self.depth..][..self.depth]
    }
}

/// The left factors of some rows of a tensor's update, side by side: for each group of [`ROWS`]
/// rows, `depth` columns of it, the last group filled up with zeros.
#[derive(Debug, Clone, Default)]
pub struct PackedLeft {
    depth: usize,
    rows: usize,
    groups: Vec<[f32; ROWS]>,
}

impl PackedLeft {
    /// Packs rows `first..first + rows` of factors of (all rows) × rᵢ, each times its scale.
    ///
    /// # Panics
    /// If the rows leave a factor.
    #[track_caller]
    pub fn new(factors: &[(Factor, f64)], first: usize, rows: usize) -> Self {
        let depth: usize = factors.iter().map(|(factor, _)| factor.columns).sum();
        let mut groups = vec![[0f32; ROWS]; rows.div_ceil(ROWS) * depth];
        for row in 0..rows {
            let group = &mut groups[row / ROWS * depth..][..depth];
            let values = factors.iter().flat_map(|(factor, scale)| {
                factor.row(first + row).iter().map(move |value| (f64::from(*value) * scale) as f32)
            });
            for (slot, value) in group.iter_mut().zip(values) {
                slot[row % ROWS] = value;
            }
        }
        Self { depth, rows, groups }
    }

    /// Rows of the product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The `depth` columns of one group of rows.
    pub fn group(&self, group: usize) -> &[[f32; ROWS]] {
        &self.groups[group * self.depth..][..self.depth]
    }

    /// Groups of rows.
    pub fn group_count(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_twice_changes_nothing() {
        let factor = Factor::new(2, 3, vec![1., 2., 3., 4., 5., 6.]);
        assert_eq!(factor.transposed().values, [1., 4., 2., 5., 3., 6.]);
        assert_eq!(factor.transposed().transposed(), factor);
    }

    #[test]
    fn packing_keeps_order_and_pads_with_zeros() {
        let right = PackedRight::new(
            65,
            &[Factor::new(1, 65, vec![1.0; 65]), Factor::new(1, 65, vec![2.0; 65])],
        );
        assert_eq!(right.block(0)[1], [2.0; BLOCK]);
        assert_eq!(right.block(1)[0][..2], [1.0, 0.0]);
        let left = PackedLeft::new(&[(Factor::new(6, 1, vec![0., 1., 2., 3., 4., 5.]), 2.0)], 1, 5);
        assert_eq!(left.group(0), [[2., 4., 6., 8.]]);
        assert_eq!(left.group(1), [[10., 0., 0., 0.]]);
    }
}
