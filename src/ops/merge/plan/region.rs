//! The part of a tensor that a term lies in.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::adapter::place::Placement;
use crate::adapter::slice::Span;

/// A part of a rows × columns tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its rows.
    pub rows: Range<usize>,
    /// Its columns; all if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Span>,
    /// Rows of the update that lie there, first to first; all if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Range<usize>>,
    /// Of how many heads the update's rows are, where the tensor has them in llama.cpp's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
}

impl Region {
    /// Where a placement lies in a tensor of this shape; none for the whole update on the whole of it.
    pub(in crate::ops::merge) fn of(place: &Placement, stored: &[usize]) -> Option<Self> {
        if place.is_whole() {
            return None;
        }
        let high = match (place.expert, stored) {
            (Some(_), [_, rows, ..]) | (None, [rows, ..]) => *rows,
            _ => 1,
        };
        let above = place.expert.unwrap_or(0) * high;
        let rows = place.rows.clone().unwrap_or(0..high);
        Some(Self {
            rows: above + rows.start..above + rows.end,
            columns: place.columns,
            part: place.part.as_ref().map(|part| part.rows.clone()),
            heads: place.heads,
        })
    }

    /// Whether two terms share an element; without a region one is everywhere.
    pub(in crate::ops::merge) fn meet(a: Option<&Self>, b: Option<&Self>) -> bool {
        let (Some(a), Some(b)) = (a, b) else { return true };
        let columns = match (a.columns, b.columns) {
            (Some(a), Some(b)) => a.meets(b),
            _ => true,
        };
        a.rows.start < b.rows.end && b.rows.start < a.rows.end && columns
    }

    /// Rows and columns of the update, for a tensor of this size.
    pub(in crate::ops::merge) fn size(&self, (_, columns): (usize, usize)) -> (usize, usize) {
        (self.rows.len(), self.columns.map_or(columns, |span| span.count))
    }

    /// The row of the update that lies in a row of the tensor, if one does.
    pub(in crate::ops::merge) fn row_of(&self, row: usize) -> Option<usize> {
        let first = self.part.as_ref().map_or(0, |part| part.start);
        self.rows.contains(&row).then(|| row - self.rows.start + first)
    }

    /// What two ranges of rows share, if anything.
    pub(in crate::ops::merge) fn within(&self, first: usize, rows: usize) -> Option<Range<usize>> {
        let (start, end) = (self.rows.start.max(first), self.rows.end.min(first + rows));
        (start < end).then_some(start..end)
    }
}
