//! What can go wrong with a fine-tuned checkpoint that is merged.

use std::path::PathBuf;

/// Why a fine-tuned checkpoint cannot be merged into a base.
#[derive(Debug, thiserror::Error)]
pub enum TunedError {
    /// The two have not the same tensors.
    #[error(
        "it is not a checkpoint of the same tensors: {missing} of the base's are missing, {extra} are \
         not in the base, such as `{first}`"
    )]
    Differ {
        /// The base's tensors that it lacks.
        missing: usize,
        /// Its tensors that the base lacks.
        extra: usize,
        /// One of them.
        first: String,
    },
    /// Codes or integers that are not the same.
    #[error("it differs from the base's, and {tuned} and {base} have no difference to add")]
    Codes {
        /// The base's dtype.
        base: String,
        /// The checkpoint's dtype.
        tuned: String,
    },
    /// An adapter puts other values in the tensor's place.
    #[error("{} replaces it, so no difference from the base can be added to it", adapter.display())]
    Replaced {
        /// The adapter.
        adapter: PathBuf,
    },
}

impl TunedError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Differ { .. } => {
                "was it tuned from this base? --exclude REGEX leaves tensors out; --allow-unmatched takes missing \
                 ones as unchanged and leaves out others"
            }
            Self::Codes { .. } => "leave it as the base has it: --exclude REGEX",
            Self::Replaced { .. } => {
                "leave it to one of them with --exclude, or merge one after the other"
            }
        }
    }
}
