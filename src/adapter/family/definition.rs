//! What a family is: the parts that it is recognised by and takes, and how it makes a module of them.

use super::source::Source;
use crate::adapter::key::Part;
use crate::adapter::module::Module;
use crate::error::{Error, FamilyError, Result};

/// One parametrisation.
pub(super) struct Family {
    /// Its name in reports.
    pub(super) name: &'static str,
    /// Parts of which any makes a module one of the family.
    pub(super) signs: &'static [Part],
    /// Other parts it takes.
    pub(super) parts: &'static [Part],
    /// Makes a module, not yet decomposed.
    pub(super) build: fn(&Source<'_>) -> Result<Module>,
}

impl Family {
    /// The error of a tensor that the family has no use for.
    pub(super) fn stray(&self, tensor: &str) -> Error {
        Error::from(FamilyError::StrayPart { family: self.name }).in_tensor(tensor)
    }
}
