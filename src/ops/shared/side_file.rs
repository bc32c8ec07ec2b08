//! A file beside the weights of an output.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A file of the output that is no weight file of the merged models.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SideFile {
    /// Its path below the output.
    pub relative: String,
    /// The base's file it is a copy of; none for a made one.
    pub source: Option<PathBuf>,
    /// What it will hold, where it is not a plain copy.
    pub content: Option<String>,
}
