//! Parametrisations of an update, one file each: from a module's tensors to a checked [`Module`].

pub(super) mod dora;
pub(super) mod lora;
pub(super) mod replaced;

use std::collections::BTreeMap;

use super::convention::Part;

/// A module's tensors by their part, each by its name in the file.
pub(super) type Parts = BTreeMap<Part, String>;

#[cfg(doc)]
use super::module::Module;
