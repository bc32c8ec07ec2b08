//! Patterns that choose modules.

use regex::Regex;

use crate::error::{ErrorKind, Result};

/// The expression, or an error that says what is wrong with it.
pub(super) fn pattern(text: &str) -> Result<Regex> {
    Regex::new(text).map_err(|error| {
        ErrorKind::BadOption(format!("`{text}` is no regular expression: {error}")).into()
    })
}
