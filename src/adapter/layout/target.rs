//! What becomes of an adapter's modules in another convention.

use std::ops::Range;

use crate::error::{Error, Result};

/// A module of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name in the other convention.
    pub name: String,
    /// What it is made of.
    pub source: MadeOf,
}

/// What a module of the result is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MadeOf {
    /// A module of the adapter, whole.
    Whole(usize),
    /// Rows of some.
    Rows {
        /// Which go where, in order of where.
        pieces: Vec<Piece>,
        /// Rows in all; those of no piece are zero.
        total: usize,
    },
}

/// Rows of a module that are rows of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The module, by its number in the adapter.
    pub module: usize,
    /// Its rows.
    pub from: Rows,
    /// Where they lie; as many.
    pub to: Rows,
}

/// Rows of a matrix at one distance from each other: all from one to another, or every second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// The first.
    pub first: usize,
    /// From one to the next; at least 1.
    pub step: usize,
    /// How many.
    pub count: usize,
}

impl Rows {
    /// Their numbers, in order.
    pub fn numbers(self) -> impl Iterator<Item = usize> + Clone {
        (0..self.count).map(move |at| self.first + at * self.step)
    }

    /// The number behind the last.
    pub fn end(self) -> usize {
        self.numbers().last().map_or(self.first, |last| last + 1)
    }

    /// The rows of an expert's gate (0) or up (1) in the matrix that has both: one under the other, or in
    /// turns, as gpt-oss has them.
    pub fn of_half(half: usize, count: usize, in_turns: bool) -> Self {
        match in_turns {
            true => Self { first: half, step: 2, count },
            false => (half * count..(half + 1) * count).into(),
        }
    }

    /// Whether a row is one of them.
    pub fn contains(self, row: usize) -> bool {
        let steps = row.checked_sub(self.first).map(|away| (away / self.step, away % self.step));
        steps.is_some_and(|(at, beside)| beside == 0 && at < self.count)
    }
}

impl From<Range<usize>> for Rows {
    fn from(range: Range<usize>) -> Self {
        Self { first: range.start, step: 1, count: range.len() }
    }
}

impl MadeOf {
    /// The modules it is made of.
    pub fn modules(&self) -> Vec<usize> {
        match self {
            Self::Whole(module) => vec![*module],
            Self::Rows { pieces, .. } => {
                let mut modules: Vec<usize> = pieces.iter().map(|piece| piece.module).collect();
                modules.dedup();
                modules
            }
        }
    }
}

/// A module of the result, or the module of the adapter that has no place in it, by its number.
pub type Wanted = std::result::Result<Target, (usize, Error)>;

/// The result's modules and replacements.
#[derive(Debug)]
pub struct Layout {
    /// What the adapter's modules become.
    pub modules: Vec<Wanted>,
    /// What each of its replacements' modules is called.
    pub replacements: Vec<Result<String>>,
}
