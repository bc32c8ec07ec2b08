//! Which rows of a published tensor a split module is: the one rule that merges and conversions share.

use std::ops::Range;

/// What of a published tensor a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapter) enum Cut {
    /// All of it.
    Whole,
    /// `count` of `of` equal parts of its rows, from part `start` on.
    Share {
        /// The first part.
        start: usize,
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
        /// Whether a part has as many rows as the tensor has inputs, in every model of the
        /// architecture: an adapter of other proportions is of another model.
        square: bool,
    },
    /// As many of its first rows as the module has outputs; two others of equal size follow.
    First,
    /// As many of its rows, as many again behind them.
    Middle,
    /// As many of its last rows.
    Last,
    /// All of it, the second half of its rows first.
    Swapped,
    /// One matrix of a stack, whose number the rule's `{e}` stands for.
    Stack,
    /// One half of it, the gate's or the projection's up.
    StackHalf(usize),
}

impl Cut {
    /// One of `of` equal parts, each as many rows as there are inputs.
    pub(in crate::adapter) const fn nth(start: usize, of: usize) -> Self {
        Self::Share { start, count: 1, of, square: true }
    }

    /// Where among its tensor's modules it stands, and whether it is the last.
    pub(in crate::adapter) fn order(self) -> Option<(usize, usize)> {
        match self {
            Self::Share { start, count, of, .. } => {
                Some((start, if start + count == of { of } else { 0 }))
            }
            Self::First => Some((0, 0)),
            Self::Middle => Some((1, 0)),
            Self::Last => Some((2, 3)),
            _ => None,
        }
    }

    /// The rows of a published tensor of `total` rows that a split module has.
    ///
    /// `queries` is how many rows the first of three parts has, of which the two others are as long as
    /// each other; [`Cut::First`] and its like have no rows without it. `inputs` holds a square share to
    /// its proportion; 0 where that is not to be asked.
    pub(in crate::adapter) fn rows(
        self,
        total: usize,
        queries: Option<usize>,
        inputs: usize,
    ) -> Option<Range<usize>> {
        let parted = queries.and_then(|queries| {
            let keys = total.checked_sub(queries).filter(|keys| keys.is_multiple_of(2))? / 2;
            (queries > 0 && keys > 0).then_some((queries, keys))
        });
        match self {
            Self::Share { start, count, of, square } => {
                let unit = total / of.max(1);
                let proportioned = !square || inputs == 0 || unit == inputs;
                let sound = unit * of == total && unit > 0 && proportioned;
                sound.then(|| start * unit..(start + count) * unit)
            }
            Self::First => parted.map(|(queries, _)| 0..queries),
            Self::Middle => parted.map(|(queries, keys)| queries..queries + keys),
            Self::Last => parted.map(|(queries, keys)| queries + keys..total),
            Self::Swapped => total.is_multiple_of(2).then_some(0..total),
            Self::Whole | Self::Stack | Self::StackHalf(_) => Some(0..total),
        }
    }
}
