//! One item of a batch, as it stands in its file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::asked::Asked;
use super::verbs;
use crate::format::remote::as_written;
use crate::format::yaml::Node;
use crate::ops::run::fields::Read;

/// One item of a batch: a verb and its keys, with the defaults, for one input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Item {
    /// The verb.
    pub(super) verb: String,
    /// What it works on, as the file has it.
    pub(super) input: String,
    /// All keys with their values: a mapping.
    pub(super) keys: Node,
}

impl Item {
    /// What reports and errors call it.
    pub(super) fn name(&self) -> String {
        // A plan that was read has what stands for a place in a store on this machine.
        format!("{} {}", self.verb, as_written(&self.input))
    }

    /// What it asks for; its paths are relative to `folder`.
    ///
    /// # Errors
    /// The first thing that is wrong with its keys.
    pub(super) fn asked(&self, folder: &Path) -> Read<Asked> {
        let verb = verbs::by_name(&self.verb, self.keys.place)?;
        (verb.read)(&self.keys, folder)
    }
}
