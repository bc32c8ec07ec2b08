//! What can go wrong between conventions.

/// See [`ErrorKind::Convert`](super::ErrorKind::Convert).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// Rows of a GGUF adapter in an order that depends on the base's heads.
    #[error(
        "llama.cpp reordered its rows by the base's attention heads, which the file does not say"
    )]
    UnknownHeads,
    /// A GGUF name without a counterpart.
    #[error("nothing in {architecture} has this name")]
    UnknownGgufName {
        /// The architecture.
        architecture: &'static str,
    },
}

impl ConvertError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::UnknownHeads => {
                "convert it first: lora-tool convert --to peft --reference BASE, BASE the model's directory"
            }
            Self::UnknownGgufName { .. } => "was it made for a model of another architecture?",
        }
    }
}
