//! What is asked of a conversion.

use std::path::PathBuf;

use crate::adapter::OpenOptions;

/// What to convert, and to what.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The adapter.
    pub adapter: PathBuf,
    /// The convention's name; empty for the program's.
    pub to: String,
    /// The program that shall load the result, by name.
    pub program: Option<String>,
    /// A base to take names and heads from.
    pub reference: Option<PathBuf>,
    /// Where the result goes.
    pub output: PathBuf,
    /// Leave out what the target cannot hold.
    pub allow_loss: bool,
    /// How the adapter is opened.
    pub open: OpenOptions,
    /// Replace an existing output.
    pub force: bool,
}
