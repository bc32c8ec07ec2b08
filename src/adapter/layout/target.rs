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
    pub from: Range<usize>,
    /// Where they lie.
    pub to: Range<usize>,
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
