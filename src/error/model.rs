//! What can stand in the place of a model's checkpoint.

use std::path::PathBuf;

use super::counted;

/// See [`ErrorKind::Model`](super::ErrorKind::Model).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// An adapter.
    #[error("this is an adapter ({convention}, {}), not {expected} checkpoint", counted(*modules, "module"))]
    Adapter {
        /// Its convention.
        convention: &'static str,
        /// Modules that it updates.
        modules: usize,
        /// What was wanted, with its article.
        expected: &'static str,
        /// What to do with it.
        hint: String,
    },
    /// Nothing.
    #[error("a merge needs a base, and none is named")]
    NoBase {
        /// How to make one adapter of what was named.
        hint: String,
    },
    /// A base, and nothing to merge into it.
    #[error("no adapter is named to merge into {}", base.display())]
    NoAdapter {
        /// The base.
        base: PathBuf,
    },
    /// One that is not the other container's.
    #[error("one model cannot be converted as the other is: {reason}")]
    NotConverted {
        /// What has no counterpart.
        reason: String,
    },
}

impl ModelError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> &str {
        match self {
            Self::Adapter { hint, .. } | Self::NoBase { hint } => hint,
            Self::NoAdapter { .. } => {
                "the base comes first, then the adapters: lora-tool merge BASE ADAPTER -o OUT"
            }
            Self::NotConverted { .. } => {
                "--reference is the same base in the other container: a checkpoint of transformers' for one in GGUF, \
                 or the GGUF file that llama.cpp's convert_hf_to_gguf.py made of it"
            }
        }
    }
}
