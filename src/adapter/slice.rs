//! A factor as part of a stored tensor: some of its rows and columns, at even steps.

use serde::{Deserialize, Serialize};

use super::tensor::read_factor;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Checkpoint, TensorView};
use crate::math::Factor;
use crate::weight::element::arithmetic;
use crate::weight::element::float_type;

/// Some of the positions along an axis: first, first + step, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first position.
    pub first: usize,
    /// From one to the next.
    pub step: usize,
    /// How many.
    pub count: usize,
}

impl Span {
    fn all(count: usize) -> Self {
        Self { first: 0, step: 1, count }
    }

    /// One more than the last position; 0 if there is none.
    pub fn end(self) -> usize {
        self.count.checked_sub(1).map_or(0, |steps| self.first + steps * self.step + 1)
    }

    /// The positions, in order.
    pub fn positions(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |at| self.first + at * self.step)
    }

    /// Whether two spans share a position.
    pub fn meets(self, other: Self) -> bool {
        let has = |span: Self, at: usize| {
            at >= span.first
                && at < span.end()
                && (at - span.first).is_multiple_of(span.step.max(1))
        };
        let (short, long) = if self.count <= other.count { (self, other) } else { (other, self) };
        short.positions().any(|at| has(long, at))
    }
}

/// A factor's place in a file: a tensor, seen as (first dimension) × (all others), and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The tensor's name.
    pub tensor: String,
    /// Which rows; all if none.
    pub rows: Option<Span>,
    /// Which columns; all if none.
    pub columns: Option<Span>,
    /// Whether rows and columns are exchanged after that.
    pub turned: bool,
}

impl Slice {
    /// The whole tensor.
    pub fn whole(tensor: &str) -> Self {
        Self { tensor: tensor.to_owned(), rows: None, columns: None, turned: false }
    }

    /// Whether it is a whole tensor as it is.
    pub fn is_whole(&self) -> bool {
        self.rows.is_none() && self.columns.is_none() && !self.turned
    }

    /// Reads it as a rows × columns factor; of the tensor no more than that.
    ///
    /// # Errors
    /// If it is not there, has another size, or its dtype cannot be used for arithmetic.
    pub fn read(&self, file: &Checkpoint, rows: usize, columns: usize) -> Result<Factor> {
        if self.turned {
            let straight = Self { turned: false, ..self.clone() };
            return Ok(straight.read(file, columns, rows)?.transposed());
        }
        let view = find(file, &self.tensor)?;
        if self.is_whole() {
            return read_factor(view, rows, columns);
        }
        let (stored_rows, stored_columns) = match view.spec.shape.as_slice() {
            [] => (1, 1),
            [first, rest @ ..] => (*first, rest.iter().product()),
        };
        let down = self.rows.unwrap_or(Span::all(stored_rows));
        let across = self.columns.unwrap_or(Span::all(stored_columns));
        let inside = down.end() <= stored_rows && across.end() <= stored_columns;
        if !inside || (down.count, across.count) != (rows, columns) {
            let expected = format!("{rows} × {columns} elements of a slice");
            return Err(ErrorKind::BadShape { expected, found: view.spec.shape.clone() })
                .in_tensor(&self.tensor);
        }
        Ok(Factor::new(rows, columns, read_spans(view, stored_columns, down, across)?))
    }
}

/// Reads some rows and columns of a tensor of this width, row by row. The spans lie inside it.
///
/// # Errors
/// If reading fails or the dtype is no floating-point type.
fn read_spans(view: TensorView<'_>, width: usize, rows: Span, columns: Span) -> Result<Vec<f32>> {
    let element = arithmetic(view)?;
    let size = element.size();
    let mut values = vec![0.0; rows.count * columns.count];
    let (mut scratch, mut picked) = (Vec::new(), Vec::with_capacity(columns.count * size));
    let bytes = view.all(&mut scratch)?;
    for (row, values) in rows.positions().zip(values.chunks_mut(columns.count.max(1))) {
        let row = bytes.get(row * width * size..).unwrap_or_default();
        let wanted = row.get(columns.first * size..).unwrap_or_default();
        if columns.step == 1 {
            element.decode_f32(wanted.get(..columns.count * size).unwrap_or_default(), values);
            continue;
        }
        picked.clear();
        for value in wanted.chunks(columns.step.max(1) * size).take(columns.count) {
            picked.extend(value.get(..size).unwrap_or_default());
        }
        element.decode_f32(&picked, values);
    }
    Ok(values)
}

/// A tensor that a module names.
///
/// # Errors
/// If it is not there.
pub fn find<'a>(file: &'a Checkpoint, name: &str) -> Result<TensorView<'a>> {
    file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)
}

/// Fails unless the tensor's dtype can be used for arithmetic.
pub(super) fn check_dtype(view: TensorView<'_>) -> Result<()> {
    float_type(view.spec.dtype).map(|_| ()).in_tensor(&view.spec.name)
}
