//! What an encoding is, and what several of them ask of names and shapes.

use std::sync::Arc;

use crate::error::Result;
use crate::weight::decode::Recognised;
use crate::weight::model::Model;
use crate::weight::{Encode, Stored};

/// One way of storing weights.
pub struct Encoding {
    /// Its name in reports.
    pub name: &'static str,
    /// Endings of tensors that belong to codes: one without any is a fault.
    pub(in crate::weight) companions: &'static [&'static str],
    /// Whether a tensor is the codes of a weight stored this way; its companions are checked.
    pub(in crate::weight) recognise: fn(&Model<'_>, &Stored) -> Result<Option<Recognised>>,
}

/// What writes a matrix, stored as numbers, of so many rows and columns.
type Writer = fn(&Stored, (usize, usize)) -> Option<Arc<dyn Encode>>;

/// A way of storing any matrix, by a name: an encoding with the settings that its package has by default.
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What writes a matrix so.
    pub(in crate::weight) writer: Writer,
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
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
