//! TUNED − BASE, panel by panel: the difference is never held.

use crate::adapter::tensor::element_type;
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::TensorView;
use crate::math::ElementType;
use crate::math::linalg::panels::Panels;

/// The difference of two stored tensors as a matrix. It is rounded once to f32, from f64 where one of them is
/// stored so.
pub(in crate::ops) struct Difference<'a> {
    base: Side<'a>,
    tuned: Side<'a>,
    rows: usize,
    columns: usize,
    /// The largest |tuned − base| seen so far; not a number once an element is not finite.
    pub(in crate::ops) largest: f32,
    wide: (Vec<f64>, Vec<f64>),
}

struct Side<'a> {
    view: TensorView<'a>,
    element: ElementType,
    scratch: Vec<u8>,
    values: Vec<f32>,
}

impl<'a> Side<'a> {
    fn new(view: TensorView<'a>) -> Result<Self> {
        let element = element_type(view.spec.dtype)
            .ok_or_else(|| ErrorKind::BadDtype { dtype: view.spec.dtype.to_string() })
            .in_tensor(&view.spec.name)?;
        Ok(Self { view, element, scratch: Vec::new(), values: Vec::new() })
    }

    fn bytes(&mut self, first: usize, count: usize) -> Result<&[u8]> {
        let size = self.element.size() as u64;
        let range = first as u64 * size..(first + count) as u64 * size;
        self.view.bytes(range, &mut self.scratch)
    }

    fn decode(&mut self, first: usize, count: usize) -> Result<()> {
        let element = self.element;
        let mut values = std::mem::take(&mut self.values);
        values.resize(count, 0.0);
        element.decode_f32(self.bytes(first, count)?, &mut values);
        self.values = values;
        Ok(())
    }

    fn decode_wide(&mut self, first: usize, values: &mut Vec<f64>, count: usize) -> Result<()> {
        let element = self.element;
        values.resize(count, 0.0);
        element.decode(self.bytes(first, count)?, values);
        Ok(())
    }
}

impl<'a> Difference<'a> {
    pub(in crate::ops) fn new(
        base: TensorView<'a>,
        tuned: TensorView<'a>,
        (rows, columns): (usize, usize),
    ) -> Result<Self> {
        let (base, tuned) = (Side::new(base)?, Side::new(tuned)?);
        Ok(Self { base, tuned, rows, columns, largest: 0.0, wide: (Vec::new(), Vec::new()) })
    }

    fn is_wide(&self) -> bool {
        self.base.element == ElementType::F64 || self.tuned.element == ElementType::F64
    }

    /// Says which element of which checkpoint is not finite.
    pub(in crate::ops) fn explain_non_finite(&mut self) -> Result<Error> {
        for row in 0..self.rows {
            let first = row * self.columns;
            for side in [&mut self.base, &mut self.tuned] {
                let mut values = Vec::new();
                side.decode_wide(first, &mut values, self.columns)?;
                let at = values.iter().position(|value| !value.is_finite());
                if let Some(at) = at {
                    let value = values.get(at).map(ToString::to_string).unwrap_or_default();
                    return Ok(Error::from(ErrorKind::NonFiniteBase { index: first + at, value })
                        .in_tensor(&side.view.spec.name)
                        .in_file(&side.view.shard.path));
                }
            }
        }
        let reason = "the difference is too large for f32".to_owned();
        Ok(Error::from(ErrorKind::BadOption(reason)).in_tensor(&self.base.view.spec.name))
    }
}

impl Panels for Difference<'_> {
    type Error = Error;

    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn fill(&mut self, first: usize, out: &mut [f32]) -> Result<()> {
        let at = first * self.columns;
        if self.is_wide() {
            let (mut base, mut tuned) = std::mem::take(&mut self.wide);
            self.base.decode_wide(at, &mut base, out.len())?;
            self.tuned.decode_wide(at, &mut tuned, out.len())?;
            for ((slot, new), old) in out.iter_mut().zip(&tuned).zip(&base) {
                *slot = (new - old) as f32;
            }
            self.wide = (base, tuned);
        } else {
            self.base.decode(at, out.len())?;
            self.tuned.decode(at, out.len())?;
            for ((slot, new), old) in out.iter_mut().zip(&self.tuned.values).zip(&self.base.values)
            {
                *slot = new - old;
            }
        }
        let mut largest = self.largest;
        for value in out.iter() {
            largest = if value.abs() > largest { value.abs() } else { largest };
        }
        self.largest = largest;
        Ok(())
    }
}
