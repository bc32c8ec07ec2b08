//! tune: weights that score best by a command of the user's, written down as a recipe.
//!
//! The search multiplies what a method makes by one factor for all, then each adapter's weight by one of its own
//! (`search.rs`). Every candidate is written beside the output, scored (`score.rs`), and its score kept (`state.rs`).

mod run;
mod score;
mod search;
mod state;

pub use run::{Options, Report, Trial, run};
