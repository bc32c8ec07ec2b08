//! Where in a base tensor a module's update lies: all of it, some rows or columns, or one matrix of a
//! stack.

use std::ops::Range;

use serde::Serialize;

use super::slice::Span;

/// A module's update, or some rows of it, in a base tensor.
///
/// Rows and columns are those of the tensor seen as (first dimension) × (all others), or of one matrix
/// of a stack. "The update" is as the tensor has it: transposed where the tensor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// The base tensor's name.
    pub tensor: String,
    /// Which matrix of a stack `[experts, …, …]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expert: Option<usize>,
    /// Which rows; all if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<Range<usize>>,
    /// Which columns; all if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Span>,
    /// Which rows of the update; all if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<RowSlice>,
    /// Of how many heads the update's rows are, where the tensor has them in llama.cpp's order
    /// ([`row_order`](super::convention::gguf_names::row_order)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    /// Whether the tensor is stored inputs × outputs, where its sizes do not tell and something else does
    /// (see [`orientation`](super::orientation)).
    #[serde(skip_serializing_if = "is_not_turned")]
    pub turned: Option<bool>,
}

#[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option, reason = "serde hands it over so")]
fn is_not_turned(turned: &Option<bool>) -> bool {
    *turned != Some(true)
}

/// Some rows of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowSlice {
    /// Which.
    pub rows: Range<usize>,
    /// Of how many.
    pub of: usize,
}

impl Placement {
    /// The whole of a tensor.
    pub fn whole(tensor: &str) -> Self {
        Self {
            tensor: tensor.to_owned(),
            expert: None,
            rows: None,
            columns: None,
            part: None,
            heads: None,
            turned: None,
        }
    }

    /// Whether it is the whole update on the whole tensor.
    pub fn is_whole(&self) -> bool {
        self.expert.is_none()
            && self.rows.is_none()
            && self.columns.is_none()
            && self.part.is_none()
            && self.heads.is_none()
    }

    /// Shape of the update that fits here, for a tensor of this shape.
    pub fn shape(&self, stored: &[usize]) -> Vec<usize> {
        let mut shape = match self.expert {
            Some(_) => stored.get(1..).unwrap_or_default().to_vec(),
            None => stored.to_vec(),
        };
        if let Some(rows) = shape.first_mut() {
            *rows = match (&self.part, &self.rows) {
                (Some(part), _) => part.of,
                (None, Some(rows)) => rows.len(),
                (None, None) => *rows,
            };
        }
        if let (Some(columns), Some(span)) = (shape.get_mut(1), self.columns) {
            *columns = span.count;
        }
        shape
    }

    /// Whether two places share an element.
    pub fn meets(&self, other: &Self) -> bool {
        let experts = match (self.expert, other.expert) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        let rows = match (&self.rows, &other.rows) {
            (Some(a), Some(b)) => a.start < b.end && b.start < a.end,
            _ => true,
        };
        let columns = match (self.columns, other.columns) {
            (Some(a), Some(b)) => a.meets(b),
            _ => true,
        };
        self.tensor == other.tensor && experts && rows && columns
    }
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.tensor)?;
        if let Some(expert) = self.expert {
            write!(f, "[{expert}]")?;
        }
        if let Some(rows) = &self.rows {
            write!(f, " rows {}..{}", rows.start, rows.end)?;
        }
        if let Some(Span { first, step, count }) = self.columns {
            write!(f, " columns {first}..{}", first + step * count)?;
            if step > 1 {
                write!(f, " by {step}")?;
            }
        }
        if let Some(heads) = self.heads {
            write!(f, " (rows in llama.cpp's order of {heads} heads)")?;
        }
        if let Some(part) = &self.part {
            write!(f, " (rows {}..{} of {})", part.rows.start, part.rows.end, part.of)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_share_an_element_meet() {
        let rows = |rows| Placement { rows: Some(rows), ..Placement::whole("a") };
        let columns = |first, step, count| Placement {
            columns: Some(Span { first, step, count }),
            ..Placement::whole("a")
        };
        assert!(Placement::whole("a").meets(&rows(0..4)));
        assert!(!Placement::whole("a").meets(&Placement::whole("b")));
        assert!(rows(0..4).meets(&rows(3..8)));
        assert!(!rows(0..4).meets(&rows(4..8)));
        assert!(!columns(0, 2, 4).meets(&columns(1, 2, 4)));
        assert!(columns(0, 2, 4).meets(&columns(4, 1, 1)));
        let expert = |expert| Placement { expert: Some(expert), ..Placement::whole("a") };
        assert!(!expert(0).meets(&expert(1)));
        assert!(expert(0).meets(&Placement::whole("a")));
    }

    #[test]
    fn the_update_that_fits_has_its_own_shape() {
        let place = Placement {
            expert: Some(1),
            columns: Some(Span { first: 0, step: 2, count: 5 }),
            ..Placement::whole("a")
        };
        assert_eq!(place.shape(&[4, 3, 10]), [3, 5]);
        let part = RowSlice { rows: 2..4, of: 12 };
        let place = Placement { part: Some(part), ..Placement::whole("a") };
        assert_eq!(place.shape(&[2, 3]), [12, 3]);
        assert_eq!(place.to_string(), "a (rows 2..4 of 12)");
    }
}
