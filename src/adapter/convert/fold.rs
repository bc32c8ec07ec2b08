//! Scales that the target cannot say of single modules go into the factors: powers of two, which are
//! exact, shared evenly by both; what is left of them into B.

use crate::adapter::layout::Rows;
use crate::error::Result;
use crate::format::Dtype;
use crate::math::ElementType;
use crate::weight::element::{decoded, encoded, float_type};

/// A factor as it is stored: dtype, rows, columns and bytes.
#[derive(Debug, Clone)]
pub(super) struct Factor {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}

impl Factor {
    /// Zeros.
    pub(super) fn zeros(dtype: Dtype, shape: Vec<usize>) -> Self {
        let count: usize = shape.iter().product();
        let size = float_type(dtype).map_or(0, ElementType::size);
        Self { dtype, shape, bytes: vec![0; count * size] }
    }

    /// How many elements it has.
    pub(super) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its values.
    pub(super) fn values(&self) -> Result<Vec<f64>> {
        decoded(self.dtype, &self.bytes)
    }

    /// Whether all of its values are zero.
    pub(super) fn is_zero(&self) -> Result<bool> {
        Ok(self.values()?.iter().all(|value| *value == 0.0))
    }

    /// Bytes of a row and of an element.
    fn strides(&self) -> (usize, usize) {
        let rows = self.shape.first().copied().unwrap_or(1).max(1);
        (self.bytes.len() / rows, self.bytes.len() / self.count().max(1))
    }

    /// Some of its rows.
    pub(super) fn rows(&self, rows: Rows) -> Self {
        let (row, _) = self.strides();
        let of = |at: usize| self.bytes.get(at * row..(at + 1) * row).unwrap_or_default();
        self.with_size(0, rows.count, rows.numbers().flat_map(of).copied().collect())
    }

    /// Some of its rows, by number.
    pub(super) fn picked(&self, rows: &[usize]) -> Self {
        let (row, _) = self.strides();
        let of = |at: &usize| self.bytes.get(at * row..(at + 1) * row).unwrap_or_default();
        self.with_size(0, rows.len(), rows.iter().flat_map(of).copied().collect())
    }

    /// Some of its columns, by number; behind them nothing but ones.
    pub(super) fn columns(&self, columns: &[usize]) -> Self {
        let (row, element) = self.strides();
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for values in self.bytes.chunks(row.max(1)) {
            for at in columns {
                bytes.extend(values.get(at * element..(at + 1) * element).unwrap_or_default());
            }
        }
        self.with_size(1, columns.len(), bytes)
    }

    fn with_size(&self, axis: usize, size: usize, bytes: Vec<u8>) -> Self {
        let mut shape = self.shape.clone();
        if let Some(length) = shape.get_mut(axis) {
            *length = size;
        }
        Self { dtype: self.dtype, shape, bytes }
    }

    /// Writes another of the same dtype into these rows, from this column on.
    pub(super) fn put(&mut self, rows: Rows, column: usize, block: &Self) {
        let ((row, element), (block_row, _)) = (self.strides(), block.strides());
        for (at, values) in rows.numbers().zip(block.bytes.chunks(block_row.max(1))) {
            let start = at * row + column * element;
            if let Some(place) = self.bytes.get_mut(start..start + values.len()) {
                place.copy_from_slice(values);
            }
        }
    }

    /// The same in another dtype.
    pub(super) fn into_dtype(self, dtype: Dtype) -> Result<Self> {
        if self.dtype == dtype {
            return Ok(self);
        }
        let bytes = encoded(dtype, &self.values()?)?;
        Ok(Self { dtype, shape: self.shape, bytes })
    }
}

/// Multiplies up · down by `factor`. A factor that its dtype cannot hold exactly becomes f32.
pub(super) fn fold(factor: f64, down: &mut Factor, up: &mut Factor) -> Result<()> {
    if factor == 1.0 {
        return Ok(());
    }
    let exponent = if factor == 0.0 { 0 } else { factor.abs().log2().floor() as i32 };
    let half = exponent.div_euclid(2);
    multiply(down, 2f64.powi(half))?;
    // The quotient of a power of two is exact.
    multiply(up, factor / 2f64.powi(half))
}

pub(super) fn multiply(factor: &mut Factor, by: f64) -> Result<()> {
    if by == 1.0 {
        return Ok(());
    }
    let element = float_type(factor.dtype)?;
    let mut values = factor.values()?;
    for value in &mut values {
        *value *= by;
    }
    let mut bytes = encoded(factor.dtype, &values)?;
    let is_exact = decoded(factor.dtype, &bytes)? == values;
    // What 32 bits or more hold is rounded once.
    if element.size() < 4 && !is_exact {
        bytes = encoded(Dtype::F32, &values)?;
        factor.dtype = Dtype::F32;
    }
    factor.bytes = bytes;
    Ok(())
}

/// Zero directions up to `rank`, which leave the product as it is.
pub(super) fn pad(rank: usize, down: &mut Factor, up: &mut Factor) {
    let filled = down.shape.first().copied().unwrap_or(rank);
    if filled == rank || filled == 0 {
        return;
    }
    down.bytes.resize(down.bytes.len() / filled * rank, 0);
    let row = up.bytes.len() / up.shape.first().copied().unwrap_or(1).max(1);
    let mut padded = Vec::with_capacity(up.bytes.len() / filled * rank);
    for values in up.bytes.chunks(row.max(1)) {
        padded.extend_from_slice(values);
        padded.resize(padded.len() + row / filled * (rank - filled), 0);
    }
    up.bytes = padded;
    for (factor, axis) in [(down, 0), (up, 1)] {
        if let Some(size) = factor.shape.get_mut(axis) {
            *size = rank;
        }
    }
}

/// The commonest value that is not 0, the first of equals; 1 if there is none.
pub(super) fn commonest(values: &[f64]) -> f64 {
    let mut counts: Vec<(f64, usize)> = Vec::new();
    for value in values.iter().filter(|value| **value != 0.0) {
        match counts.iter_mut().find(|(known, _)| known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((*value, 1)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
    counts.iter().find(|(_, count)| *count == most).map_or(1.0, |(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factor(dtype: Dtype, shape: &[usize], values: &[f64]) -> Factor {
        let bytes = encoded(dtype, values).expect("a floating-point dtype");
        Factor { dtype, shape: shape.to_vec(), bytes }
    }

    fn values(factor: &Factor) -> Vec<f64> {
        factor.values().expect("a floating-point dtype")
    }

    #[test]
    fn powers_of_two_keep_the_dtype_and_every_bit() {
        let mut down = factor(Dtype::BF16, &[1, 2], &[1.5, -3.0]);
        let mut up = factor(Dtype::BF16, &[2, 1], &[0.5, 7.0]);
        fold(0.125, &mut down, &mut up).expect("folds");
        assert_eq!((down.dtype, up.dtype), (Dtype::BF16, Dtype::BF16));
        assert_eq!(values(&down), [0.375, -0.75]);
        assert_eq!(values(&up), [0.25, 3.5]);
    }

    #[test]
    fn what_is_no_power_of_two_widens_b_alone() {
        let mut down = factor(Dtype::F16, &[1, 1], &[1.0]);
        let mut up = factor(Dtype::F16, &[1, 1], &[1.0]);
        fold(1.0 / 3.0, &mut down, &mut up).expect("folds");
        assert_eq!((down.dtype, up.dtype), (Dtype::F16, Dtype::F32));
        let product = values(&down)[0] * values(&up)[0];
        assert!((product - 1.0 / 3.0).abs() < 1e-7);
        fold(0.0, &mut down, &mut up).expect("folds");
        assert_eq!(values(&up), [0.0]);
    }

    #[test]
    fn rows_and_columns_go_where_they_belong() {
        let whole = factor(Dtype::F16, &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(values(&whole.rows((1..3).into())), [3.0, 4.0, 5.0, 6.0]);
        assert_eq!(values(&whole.picked(&[2, 0])), [5.0, 6.0, 1.0, 2.0]);
        assert_eq!(values(&whole.columns(&[1])), [2.0, 4.0, 6.0]);
        let mut larger = Factor::zeros(Dtype::F16, vec![2, 4, 1]);
        larger.put((1..2).into(), 1, &whole.rows((1..2).into()));
        assert_eq!(values(&larger), [0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 4.0, 0.0]);
        let wide = whole.into_dtype(Dtype::F32).expect("a dtype");
        assert_eq!((wide.dtype, values(&wide)[5]), (Dtype::F32, 6.0));
    }

    #[test]
    fn padding_adds_zeros_only() {
        let mut down = factor(Dtype::F32, &[1, 2], &[1.0, 2.0]);
        let mut up = factor(Dtype::F32, &[2, 1], &[3.0, 4.0]);
        pad(3, &mut down, &mut up);
        assert_eq!((&down.shape[..], &up.shape[..]), (&[3, 2][..], &[2, 3][..]));
        assert_eq!(values(&down), [1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(values(&up), [3.0, 0.0, 0.0, 4.0, 0.0, 0.0]);
        assert_eq!(commonest(&[0.0, 2.0, 1.0, 1.0]), 1.0);
    }
}
