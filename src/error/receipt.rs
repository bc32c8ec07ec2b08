//! What can go wrong with the receipt of a merge.

use std::path::PathBuf;

/// See [`ErrorKind::Receipt`](super::ErrorKind::Receipt).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Something else, or damaged.
    #[error("it is no receipt of a merge that this version can read: {0}")]
    NoReceipt(String),
    /// Contents that are not those of their hash.
    #[error("it is damaged: its contents are not those that were written")]
    Damaged,
    /// More bytes than can come of the merged files and the receipt.
    #[error("it is no receipt of a merge: its parts do not make up the files that it names")]
    Unbounded,
    /// Files beside the weights that cannot be had back.
    #[error("{} of the base's other files cannot be restored: {}", missing.len(), missing.join("; "))]
    SidesMissing {
        /// Each with the reason.
        missing: Vec<String>,
    },
    /// A receipt that the output would take with it.
    #[error("the receipt is, contains or lies in the output {}", output.display())]
    InOutput {
        /// The output.
        output: PathBuf,
    },
    /// Another merge's, or a checkpoint that was changed since.
    #[error("it is not the file that the receipt was made for")]
    OtherMerge,
    /// A result with another hash.
    #[error("what comes out is not the base: the receipt is damaged")]
    NotTheBase,
}

impl ReceiptError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::NoReceipt(_) => "give the file that `merge --receipt FILE` wrote",
            Self::OtherMerge => {
                "a receipt undoes the very files of its own merge, untouched since; fetch the base again otherwise"
            }
            Self::Unbounded => "give the file that `merge --receipt FILE` wrote",
            Self::SidesMissing { .. } => {
                "put them back beside the merged weights, or pass --allow-missing to restore without them"
            }
            Self::InOutput { .. } => "keep it beside the output, such as OUT.receipt",
            Self::Damaged | Self::NotTheBase => {
                "nothing was written; fetch the base again from its source"
            }
        }
    }
}
