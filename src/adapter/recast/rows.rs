//! A tensor whose rows are those of tensors of another checkpoint.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{ErrorKind, Locate, Result};
use crate::format::Checkpoint;
use crate::weight::Decode;
use crate::weight::element::read_f64;

/// Rows of other tensors, one after another: those of one in any order, or all rows of several.
#[derive(Debug)]
pub(super) struct Rows {
    /// Where the other tensors are.
    pub(super) source: Arc<Checkpoint>,
    /// Their names, each with the first row that is taken.
    pub(super) tensors: Vec<(String, usize)>,
    /// Rows that are taken of each.
    pub(super) count: usize,
    /// Numbers of a row.
    pub(super) width: usize,
    /// For each row the one that it is, counted from the first that is taken; in order if there is none.
    pub(super) order: Option<Vec<usize>>,
    /// What is added to every number.
    pub(super) shift: f32,
}

impl Rows {
    /// Which tensor a row is of, and which row of it.
    fn place(&self, row: usize) -> Option<(usize, usize)> {
        let (tensor, within) = (row / self.count.max(1), row % self.count.max(1));
        let within = match &self.order {
            Some(order) => *order.get(within)?,
            None => within,
        };
        Some((tensor, self.tensors.get(tensor)?.1 + within))
    }

    fn read(&self, tensor: usize, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (name, _) = self.tensors.get(tensor).ok_or(ErrorKind::NotFound)?;
        let view = self.source.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
        let values = read_f64(view, rows.start * self.width, rows.len() * self.width);
        for (slot, value) in out.iter_mut().zip(values.in_tensor(name)?) {
            *slot = value as f32 + self.shift;
        }
        Ok(())
    }
}

impl Decode for Rows {
    /// `rows` are of as many columns as the tensor's last dimension, which the rows here are a multiple or a part of.
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let columns = out.len() / rows.len().max(1);
        let (first, end) = (rows.start * columns, rows.end * columns);
        let whole = first / self.width..end.div_ceil(self.width);
        let mut values = vec![0.0; whole.len() * self.width];
        let mut next = whole.start;
        while next < whole.end {
            let (tensor, row) = self.place(next).ok_or(ErrorKind::NotFound)?;
            let mut count = 1;
            while next + count < whole.end
                && self.place(next + count) == Some((tensor, row + count))
            {
                count += 1;
            }
            let at = (next - whole.start) * self.width;
            let slots = values.get_mut(at..at + count * self.width).unwrap_or_default();
            self.read(tensor, row..row + count, slots)?;
            next += count;
        }
        let lead = first - whole.start * self.width;
        out.copy_from_slice(values.get(lead..lead + out.len()).unwrap_or_default());
        Ok(())
    }
}
