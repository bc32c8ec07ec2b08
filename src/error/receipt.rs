//! What can go wrong with the receipt of a merge.

/// See [`ErrorKind::Receipt`](super::ErrorKind::Receipt).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Something else, or damaged.
    #[error("it is no receipt of a merge that this version can read: {0}")]
    NoReceipt(String),
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
            Self::NotTheBase => "nothing was written; fetch the base again from its source",
        }
    }
}
