//! What a verb of the command line is.

use crate::cli::{Outcome, Session};

/// What every verb's arguments can do.
pub(crate) trait Verb {
    /// Does what was asked, and answers on standard output.
    fn run(&self, session: &Session) -> Outcome;
}
