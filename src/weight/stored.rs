//! One stored tensor: where its bytes lie, and its elements as numbers.

use std::ops::Range;
use std::path::PathBuf;

use half::{bf16, f16};

use crate::error::{Error, ErrorKind, Locate, QuantError, Result};
use crate::format::checkpoint::shrunk;
use crate::format::{Dtype, Source, TensorView};
use crate::math::kernel::small_float::{
    e4m3, e5m2, e8m0, exponent, is_e4m3_nan, is_e5m2_special, to_e4m3, to_e5m2, to_e8m0,
};

/// Longest tensor that is read whole: the group of each of 2²¹ columns.
const LONGEST: u64 = 16 << 20;

/// Elements of a shape; the largest number if they are more.
pub(super) fn elements(shape: &[usize]) -> usize {
    if shape.contains(&0) { 0 } else { shape.iter().fold(1, |all, size| all.saturating_mul(*size)) }
}

/// A tensor of a file, apart from the checkpoint that found it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its (component-prefixed) name.
    pub name: String,
    /// Its dtype.
    pub dtype: Dtype,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
    path: PathBuf,
    source: Source,
    start: u64,
    length: u64,
}

impl Stored {
    /// The tensor of a view; `name` is its name with its component's prefix.
    pub fn new(name: &str, view: TensorView<'_>) -> Self {
        Self {
            name: name.to_owned(),
            dtype: view.spec.dtype,
            shape: view.spec.shape.clone(),
            path: view.shard.path.clone(),
            source: view.shard.source.clone(),
            start: view.shard.header.data_start + view.spec.start,
            length: view.spec.bytes(),
        }
    }

    /// A tensor that is to be written beside it or in its place, and holds nothing yet.
    pub(super) fn unwritten(&self, name: String, dtype: Dtype, shape: Vec<usize>) -> Self {
        let length = (elements(&shape) * dtype.bitsize() / 8) as u64;
        Self { name, dtype, shape, length, ..self.clone() }
    }

    /// Elements in it.
    pub fn elements(&self) -> usize {
        elements(&self.shape)
    }

    /// Bytes in it.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// An error about it.
    pub fn error(&self, error: impl Into<Error>) -> Error {
        error.into().in_tensor(&self.name).in_file(&self.path)
    }

    /// An error about its shape or dtype; `of` is what it belongs to.
    pub fn misfit(&self, of: &Self, expected: impl Into<String>) -> Error {
        self.error(QuantError::Grid {
            expected: expected.into(),
            found: self.shape.clone(),
            dtype: self.dtype.to_string(),
            weight: format!("`{}` {:?}", of.name, of.shape),
        })
    }

    /// The bytes of `range`, counted from its first.
    ///
    /// # Errors
    /// If reading fails or the range leaves the tensor.
    pub fn bytes<'a>(&'a self, range: Range<usize>, scratch: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let (first, end) = (range.start as u64, range.end as u64);
        if end > self.length || first > end {
            return Err(self.error(ErrorKind::Changed));
        }
        let within = self.start + first..self.start + end;
        self.source.bytes(within, scratch).map_err(shrunk).in_tensor(&self.name).in_file(&self.path)
    }

    /// Whether a part that is written has the same name, dtype and shape.
    pub fn holds(&self, part: &super::Part) -> bool {
        (&self.name, self.dtype, &self.shape) == (&part.name, part.dtype, &part.shape)
    }

    /// All its bytes: of a description, or of numbers that each belong to a column.
    ///
    /// # Errors
    /// If reading fails; if it is longer than any such tensor is.
    pub fn all(&self) -> Result<Vec<u8>> {
        if self.length > LONGEST {
            let reason =
                format!("it has {} bytes, more than the {LONGEST} it may have", self.length);
            return Err(self.error(QuantError::BadState { reason }));
        }
        let mut scratch = Vec::new();
        Ok(self.bytes(0..self.length as usize, &mut scratch)?.to_vec())
    }

    /// Of a matrix whose rows have `stride` bytes, the bytes `within` of the rows `rows`.
    ///
    /// # Errors
    /// If reading fails or the range leaves the tensor.
    pub fn pieces<'a>(
        &'a self,
        rows: Range<usize>,
        stride: usize,
        within: Range<usize>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Pieces<'a>> {
        let length = within.len();
        if rows.is_empty() {
            return Ok(Pieces { bytes: &[], stride, length });
        }
        let (first, last) = (rows.start * stride, (rows.end - 1) * stride);
        if self.source.in_memory() || length == stride {
            let bytes = self.bytes(first + within.start..last + within.end, scratch)?;
            return Ok(Pieces { bytes, stride, length });
        }
        let mut gathered = Vec::with_capacity(rows.len() * length);
        for row in rows {
            let at = row * stride + within.start;
            gathered.extend_from_slice(self.bytes(at..at + length, scratch)?);
        }
        *scratch = gathered;
        Ok(Pieces { bytes: scratch, stride: length, length })
    }

    /// Elements `range` as f32: floats of any width; bytes are powers of two.
    ///
    /// # Errors
    /// If reading fails, or the dtype holds no such numbers.
    pub fn floats(&self, range: Range<usize>) -> Result<Vec<f32>> {
        let size = self.dtype.bitsize() / 8;
        let mut scratch = Vec::new();
        let bytes = self.bytes(range.start * size..range.end * size, &mut scratch)?;
        self.numbers(bytes)
    }

    /// Numbers of bytes in its dtype.
    fn numbers(&self, bytes: &[u8]) -> Result<Vec<f32>> {
        let nan = |special: bool, value: f32| if special { f32::NAN } else { value };
        Ok(match self.dtype {
            Dtype::F32 => read(bytes, f32::from_le_bytes),
            Dtype::F64 => read(bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => read(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => read(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F8_E4M3 => read(bytes, |[b]| nan(is_e4m3_nan(b), e4m3(b))),
            Dtype::F8_E5M2 => read(bytes, |[b]| nan(is_e5m2_special(b), e5m2(b))),
            Dtype::F8_E8M0 | Dtype::U8 => read(bytes, |[b]| e8m0(b)),
            _ => return Err(self.error(ErrorKind::BadDtype { dtype: self.dtype.to_string() })),
        })
    }

    /// New scales in its dtype, each rounded to the nearest, as bytes; `values` become what those bytes stand for.
    /// `first` is the place of the first.
    ///
    /// # Errors
    /// [`QuantError::ScaleNotFinite`], if one leaves the dtype's range.
    pub(super) fn rounded(&self, first: usize, values: &mut [f32]) -> Result<Vec<u8>> {
        let values_of = values.iter();
        let bytes: Vec<u8> = match self.dtype {
            Dtype::F32 => values_of.flat_map(|value| value.to_le_bytes()).collect(),
            Dtype::F64 => values_of.flat_map(|value| f64::from(*value).to_le_bytes()).collect(),
            Dtype::F16 => values_of.flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            Dtype::BF16 => {
                values_of.flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
            }
            Dtype::F8_E4M3 => values_of.map(|value| to_e4m3(*value)).collect(),
            Dtype::F8_E5M2 => values_of.map(|value| to_e5m2(*value)).collect(),
            Dtype::F8_E8M0 | Dtype::U8 => {
                values_of.map(|value| to_e8m0(exponent(*value))).collect()
            }
            _ => return Err(self.error(ErrorKind::BadDtype { dtype: self.dtype.to_string() })),
        };
        values.copy_from_slice(&self.numbers(&bytes)?);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(bytes),
            Some(at) => {
                let (index, value) = (first + at, values.get(at).copied().unwrap_or(f32::NAN));
                Err(self.error(QuantError::ScaleNotFinite { index, value }))
            }
        }
    }

    /// As [`Stored::floats`], of scales: they must be finite.
    ///
    /// # Errors
    /// As [`Stored::floats`]; [`QuantError::ScaleNotFinite`].
    pub fn scales(&self, range: Range<usize>) -> Result<Vec<f32>> {
        let first = range.start;
        let values = self.floats(range)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => {
                let (index, value) = (first + at, values.get(at).copied().unwrap_or(f32::NAN));
                Err(self.error(QuantError::ScaleNotFinite { index, value }))
            }
        }
    }

    /// The one number of a tensor that has one.
    ///
    /// # Errors
    /// As [`Stored::scales`].
    pub fn scalar(&self) -> Result<f32> {
        Ok(self.scales(0..1)?.first().copied().unwrap_or(f32::NAN))
    }

    /// All elements of a tensor of whole numbers.
    ///
    /// # Errors
    /// If reading fails, or the dtype holds no such numbers.
    pub fn integers(&self) -> Result<Vec<i64>> {
        let bytes = self.all()?;
        Ok(match self.dtype {
            Dtype::I64 => read(&bytes, i64::from_le_bytes),
            Dtype::I32 => read(&bytes, |b| i64::from(i32::from_le_bytes(b))),
            _ => return Err(self.error(ErrorKind::BadDtype { dtype: self.dtype.to_string() })),
        })
    }
}

fn read<const N: usize, T>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| from(*chunk)).collect()
}

/// Parts of rows that lie apart.
#[derive(Debug)]
pub struct Pieces<'a> {
    bytes: &'a [u8],
    stride: usize,
    length: usize,
}

impl<'a> Pieces<'a> {
    /// The part of row number `at`, counted from the first that was asked for.
    pub fn get(&self, at: usize) -> &'a [u8] {
        let first = at * self.stride;
        self.bytes.get(first..first + self.length).unwrap_or_default()
    }
}
