//! tune: weights that score best by a command of the user's, written down as a recipe.
//!
//! The search multiplies each adapter's weight by a factor of its own, then what a method makes by one for all
//! (`search.rs`). Every candidate is written beside the output, scored (`score.rs`), and its score kept (`state.rs`).

mod run;
mod score;
mod search;
mod state;

pub use run::{Options, Report, Trial, run};
