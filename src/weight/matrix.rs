//! Tensors of any shape as matrices.

/// A tensor as rows × columns: the first dimension by all others; a vector is one row.
pub(crate) fn as_matrix(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [length] => (1, *length),
        [rows, rest @ ..] => (*rows, rest.iter().product()),
    }
}

/// As [`as_matrix`]; a stack as all rows of its matrices, so that a panel of it need not be whole matrices.
pub(crate) fn unstacked(shape: &[usize]) -> (usize, usize) {
    match shape {
        [experts, rows, columns] => (experts * rows, *columns),
        _ => as_matrix(shape),
    }
}
