//! A dense singular value decomposition in f64, by one-sided Jacobi rotations (Hestenes 1958): slow,
//! simple, accurate, and nobody else's.

use super::dense::Dense;

/// M = Σ valueᵢ · uᵢ · vᵢᵀ, values descending; of m × n, min(m, n) of them.
#[derive(Debug, Clone)]
pub struct Svd {
    pub values: Vec<f64>,
    /// Columns of m; all 0 where the value is.
    pub left: Vec<Vec<f64>>,
    /// Columns of n.
    pub right: Vec<Vec<f64>>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Turns two columns by the angle with this tangent.
fn turn(columns: &mut [Vec<f64>], p: usize, q: usize, tangent: f64) {
    let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
    let sine = cosine * tangent;
    for row in 0..columns[p].len() {
        let (x, y) = (columns[p][row], columns[q][row]);
        columns[p][row] = cosine * x - sine * y;
        columns[q][row] = sine * x + cosine * y;
    }
}

fn columns_of(matrix: &Dense) -> Vec<Vec<f64>> {
    (0..matrix.columns).map(|c| (0..matrix.rows).map(|r| matrix.at(r, c)).collect()).collect()
}

impl Svd {
    pub fn of(matrix: &Dense) -> Self {
        if matrix.rows < matrix.columns {
            let Self { values, left, right } = Self::of(&matrix.transposed());
            return Self { values, left: right, right: left };
        }
        let size = matrix.columns;
        let mut columns = columns_of(matrix);
        let unit = |at: usize| (0..size).map(|row| f64::from(u8::from(row == at))).collect();
        let mut turned: Vec<Vec<f64>> = (0..size).map(unit).collect();
        for _ in 0..60 {
            let mut off = 0f64;
            for p in 0..size {
                for q in p + 1..size {
                    let gamma = dot(&columns[p], &columns[q]);
                    if gamma == 0.0 {
                        continue;
                    }
                    let (alpha, beta) =
                        (dot(&columns[p], &columns[p]), dot(&columns[q], &columns[q]));
                    off = off.max(gamma.abs() / (alpha * beta).sqrt());
                    let zeta = (beta - alpha) / (2.0 * gamma);
                    let tangent = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                    turn(&mut columns, p, q, tangent);
                    turn(&mut turned, p, q, tangent);
                }
            }
            if off < 1e-15 {
                break;
            }
        }
        let lengths: Vec<f64> = columns.iter().map(|column| dot(column, column).sqrt()).collect();
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|a, b| lengths[*b].total_cmp(&lengths[*a]));
        let left = order.iter().map(|at| {
            let length = if lengths[*at] > 0.0 { lengths[*at] } else { 1.0 };
            columns[*at].iter().map(|value| value / length).collect()
        });
        Self {
            values: order.iter().map(|at| lengths[*at]).collect(),
            left: left.collect(),
            right: order.iter().map(|at| turned[*at].clone()).collect(),
        }
    }

    /// Values above this share of the largest.
    pub fn rank(&self, share: f64) -> usize {
        let first = self.values.first().copied().unwrap_or(0.0);
        self.values.iter().take_while(|value| **value > share * first).count()
    }

    /// Σ weightᵢ · uᵢ · vᵢᵀ.
    pub fn with(&self, weights: &[f64]) -> Dense {
        let (rows, columns) = (self.left.first(), self.right.first());
        let mut sum = Dense::zeros(rows.map_or(0, Vec::len), columns.map_or(0, Vec::len));
        for ((weight, u), v) in weights.iter().zip(&self.left).zip(&self.right) {
            for (row, u) in u.iter().enumerate() {
                for (column, v) in v.iter().enumerate() {
                    sum.values[row * v_len(&self.right) + column] += weight * u * v;
                }
            }
        }
        sum
    }

    /// The first `rank` left vectors, side by side.
    pub fn left_basis(&self, rank: usize) -> Dense {
        side_by_side(&self.left[..rank.min(self.left.len())])
    }

    /// ‖M − its best approximation of that rank‖.
    pub fn error(&self, rank: usize) -> f64 {
        self.values.iter().skip(rank).map(|value| value * value).sum::<f64>().sqrt()
    }
}

fn v_len(columns: &[Vec<f64>]) -> usize {
    columns.first().map_or(0, Vec::len)
}

/// A matrix of columns.
pub fn side_by_side(columns: &[Vec<f64>]) -> Dense {
    let rows = v_len(columns);
    let values = (0..rows).flat_map(|row| columns.iter().map(move |column| column[row]));
    Dense::new(rows, columns.len(), values.collect())
}
