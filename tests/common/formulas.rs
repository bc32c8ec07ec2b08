//! Formulas of all families as dense matrices in f64, by the plainest loops: written from the papers
//! and the libraries' own code, not from the tool's.

use super::dense::Dense;

/// A ⊙ B.
pub fn hadamard(a: &Dense, b: &Dense) -> Dense {
    assert_eq!((a.rows, a.columns), (b.rows, b.columns));
    let values = a.values.iter().zip(&b.values).map(|(a, b)| a * b).collect();
    Dense::new(a.rows, a.columns, values)
}

/// A ⊗ B.
pub fn kronecker(a: &Dense, b: &Dense) -> Dense {
    let mut product = Dense::zeros(a.rows * b.rows, a.columns * b.columns);
    for row in 0..product.rows {
        for column in 0..product.columns {
            product.values[row * a.columns * b.columns + column] =
                a.at(row / b.rows, column / b.columns) * b.at(row % b.rows, column % b.columns);
        }
    }
    product
}

/// Σᵢⱼ core[i, j, k] · up[i, o] · down[j, c], as o × (c, k); core is i × (j, k).
pub fn tucker(core: &Dense, up: &Dense, down: &Dense) -> Dense {
    let kernel = core.columns / down.rows;
    let mut sum = Dense::zeros(up.columns, down.columns * kernel);
    for output in 0..up.columns {
        for channel in 0..down.columns {
            for position in 0..kernel {
                let mut value = 0.0;
                for i in 0..up.rows {
                    for j in 0..down.rows {
                        value += core.at(i, j * kernel + position)
                            * up.at(i, output)
                            * down.at(j, channel);
                    }
                }
                sum.values[output * down.columns * kernel + channel * kernel + position] = value;
            }
        }
    }
    sum
}

pub fn identity(size: usize) -> Dense {
    diagonal(&vec![1.0; size])
}

pub fn diagonal(values: &[f64]) -> Dense {
    let mut matrix = Dense::zeros(values.len(), values.len());
    for (at, value) in values.iter().enumerate() {
        matrix.values[at * values.len() + at] = *value;
    }
    matrix
}

/// By Gauss and Jordan, with pivots.
pub fn inverse(matrix: &Dense) -> Dense {
    let size = matrix.rows;
    let (mut left, mut right) = (matrix.clone(), identity(size));
    for column in 0..size {
        let by_size =
            |a: &usize, b: &usize| left.at(*a, column).abs().total_cmp(&left.at(*b, column).abs());
        let pivot = (column..size).max_by(by_size).expect("rows");
        for at in 0..size {
            left.values.swap(pivot * size + at, column * size + at);
            right.values.swap(pivot * size + at, column * size + at);
        }
        let scale = left.at(column, column);
        for row in (0..size).filter(|row| *row != column) {
            let factor = left.at(row, column) / scale;
            for at in 0..size {
                left.values[row * size + at] -= factor * left.values[column * size + at];
                right.values[row * size + at] -= factor * right.values[column * size + at];
            }
        }
        for at in 0..size {
            left.values[column * size + at] /= scale;
            right.values[column * size + at] /= scale;
        }
    }
    right
}

/// Square blocks of a tensor of (blocks, size, size).
pub fn blocks(tensor: &Dense, size: usize) -> Vec<Dense> {
    tensor.values.chunks(size * size).map(|block| Dense::new(size, size, block.to_vec())).collect()
}

pub fn block_diagonal(blocks: &[Dense]) -> Dense {
    let size: usize = blocks.iter().map(|block| block.rows).sum();
    let mut matrix = Dense::zeros(size, size);
    let mut first = 0;
    for block in blocks {
        for row in 0..block.rows {
            for column in 0..block.columns {
                matrix.values[(first + row) * size + first + column] = block.at(row, column);
            }
        }
        first += block.rows;
    }
    matrix
}

/// P with (P·x)[i] = x[from[i]].
pub fn permutation(from: &[usize]) -> Dense {
    let mut matrix = Dense::zeros(from.len(), from.len());
    for (row, column) in from.iter().enumerate() {
        matrix.values[row * from.len() + column] = 1.0;
    }
    matrix
}

/// B − Bᵀ.
pub fn skew(block: &Dense) -> Dense {
    block.minus(&block.transposed())
}

/// The skew matrix with this upper triangle, row by row.
pub fn skew_of(triangle: &[f64], size: usize) -> Dense {
    let mut upper = Dense::zeros(size, size);
    let mut values = triangle.iter();
    for row in 0..size {
        for column in row + 1..size {
            upper.values[row * size + column] = *values.next().expect("enough");
        }
    }
    skew(&upper)
}

/// (I − Q)·(I + Q)⁻¹.
pub fn rotation(q: &Dense) -> Dense {
    let one = identity(q.rows);
    one.minus(q).times(&inverse(&one.plus(q)))
}

/// V with every row (or, of `group` columns together, every column) at its length.
pub fn decomposed(v: &Dense, lengths: &[f64], group: Option<usize>, epsilon: f64) -> Dense {
    let mut result = v.clone();
    for row in 0..v.rows {
        for column in 0..v.columns {
            let (length, norm) = match group {
                None => (lengths[row], (0..v.columns).map(|at| v.at(row, at).powi(2)).sum::<f64>()),
                Some(group) => {
                    let first = column / group * group;
                    let all = (0..v.rows).flat_map(|r| (first..first + group).map(move |c| (r, c)));
                    (lengths[column / group], all.map(|(r, c)| v.at(r, c).powi(2)).sum::<f64>())
                }
            };
            result.values[row * v.columns + column] *= length / (norm.sqrt() + epsilon);
        }
    }
    result
}
