//! What can go wrong with two checkpoints that should be one model before and after training, or two adapters
//! that should be of one model.

use std::path::PathBuf;

/// See [`ErrorKind::Pair`](super::ErrorKind::Pair).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// Names that only one of them has.
    #[error(
        "the checkpoints are not of one model: {missing} of the base's tensors have no counterpart, {extra} are only in the other, `{first}` for one"
    )]
    Unlike {
        /// Tensors that only the base has.
        missing: usize,
        /// Tensors that only the tuned one has.
        extra: usize,
        /// One of them.
        first: String,
    },
    /// Two shapes that no adapter spans.
    #[error("it is {base:?} in the base and {tuned:?} in the other")]
    Shapes {
        /// The base's.
        base: Vec<usize>,
        /// The tuned one's.
        tuned: Vec<usize>,
    },
    /// Names that only a base or its quantised sibling has.
    #[error(
        "the quantised checkpoint is not of this base: {missing} of its tensors have no counterpart, {extra} are only in the base, `{first}` for one"
    )]
    SiblingNames {
        /// Tensors that only the sibling has.
        missing: usize,
        /// Tensors that only the base has.
        extra: usize,
        /// One of them.
        first: String,
    },
    /// A tensor of another shape in a base than in its quantised sibling.
    #[error("it is {sibling:?} in the quantised checkpoint and {base:?} in the base")]
    Sibling {
        /// The sibling's.
        sibling: Vec<usize>,
        /// The base's.
        base: Vec<usize>,
    },
    /// More rows than the base has.
    #[error("it has grown from {base} rows to {tuned}, which no low-rank update can do")]
    Grown {
        /// The base's rows.
        base: usize,
        /// The tuned one's.
        tuned: usize,
    },
    /// Two adapters that nothing shows to be of one model.
    #[error("it shares no module with {}: one is for {}, the other for {}", first.display(), bases.0, bases.1)]
    Disjoint {
        /// The other adapter.
        first: PathBuf,
        /// The base model that each names, the other adapter's first.
        bases: (String, String),
    },
    /// An adapter and a model, which have nothing to be held to one another.
    #[error("this is an adapter, and {} is a checkpoint of a model", model.display())]
    AdapterAndModel {
        /// The model.
        model: PathBuf,
    },
    /// No bit of difference, or none that is looked at.
    #[error("nothing to extract: {0}")]
    Nothing(String),
}

impl PairError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Unlike { .. } => {
                "is it a fine-tune of this base? --include and --exclude choose the tensors that are compared"
            }
            Self::Shapes { .. } => "is it a fine-tune of this base? --exclude leaves it out",
            Self::SiblingNames { .. } | Self::Sibling { .. } => {
                "--quantize-like takes a quantised checkpoint of the very model that is merged into"
            }
            Self::Grown { .. } => {
                "--full-norms stores it whole (in PEFT's convention, as modules_to_save), --exclude leaves it out"
            }
            Self::Disjoint { .. } => {
                "are they for one model? --allow-disjoint puts them into one adapter all the same"
            }
            Self::AdapterAndModel { .. } => {
                "compare two adapters, or two checkpoints; `inspect ADAPTER --against BASE` shows where the adapter lands"
            }
            Self::Nothing(_) => "are the two paths the ones you mean?",
        }
    }
}
