//! What an encoding is, and what several of them ask of names and shapes.

use crate::error::Result;
use crate::weight::Stored;
use crate::weight::decode::Recognised;
use crate::weight::model::Model;

/// One way of storing weights.
pub struct Encoding {
    /// Its name in reports.
    pub name: &'static str,
    /// Whether a tensor is the codes of a weight stored this way; its companions are checked.
    pub(in crate::weight) recognise: fn(&Model<'_>, &Stored) -> Result<Option<Recognised>>,
}

/// A tensor's module: its name without `.weight`.
pub(super) fn module_of(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

/// A stack of matrices: how many, rows, columns of each.
pub(super) fn stack(shape: &[usize]) -> Option<(usize, usize, usize)> {
    match shape {
        [stack @ .., rows, columns] => Some((stack.iter().product(), *rows, *columns)),
        _ => None,
    }
}
