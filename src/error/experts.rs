//! What can go wrong with an adapter of whole parameters: PEFT's `target_parameters`.

/// See [`ErrorKind::Experts`](super::ErrorKind::Experts).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpertsError {
    /// More or fewer pairs of factors than the config names parameters.
    #[error(
        "the file has {found} pairs of factors for its parameters, the config's `target_parameters` \
         names {}: {}", .names.len(), .names.join(", ")
    )]
    Count {
        /// Pairs in the file.
        found: usize,
        /// Parameters that the config names.
        names: Vec<String>,
    },
    /// The keys say only in what order a module's parameters were wrapped.
    #[error("which factors belong to which of its parameters ({}) is not known", .names.join(", "))]
    Order {
        /// The parameters.
        names: Vec<String>,
    },
    /// Factors that are not E times the rank.
    #[error(
        "{rows} rows of A and {columns} columns of B are no whole number of experts of the config's \
         rank {rank}, or more than {most}"
    )]
    Rank {
        /// Rows of A.
        rows: usize,
        /// Columns of B.
        columns: usize,
        /// The config's rank.
        rank: usize,
        /// As many as are read.
        most: usize,
    },
    /// PEFT changed which side is the input, and neither the shapes nor the version tell.
    #[error(
        "PEFT before 0.19 took inputs for outputs in some models' experts, and this file alone does \
         not tell whether it did here"
    )]
    Orientation,
    /// Stacks, and modules of single experts beside them.
    #[error(
        "`{stack}` is adapted as a stack, `{module}` by expert; PEFT's files hold one or the other"
    )]
    TwoWays {
        /// The stack.
        stack: String,
        /// The single module.
        module: String,
    },
    /// Experts whose updates cannot lie in one tensor.
    #[error(
        "the experts of the stack differ in {what}, and the file has one tensor for all of them"
    )]
    Uneven {
        /// In what.
        what: &'static str,
    },
    /// A budget of bytes that filling up would break.
    #[error(
        "a stack of experts has one rank, so that a budget of bytes or parameters cannot be kept"
    )]
    Budget,
}

impl ExpertsError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Count { .. } | Self::Rank { .. } => {
                "the config and the tensors are not of one adapter; save it again with PEFT"
            }
            Self::Order { .. } => {
                "merge it with PEFT, which knows in what order the model's class registers them"
            }
            Self::Orientation => {
                "give the base it is for (merge, inspect --against BASE, convert --reference BASE)"
            }
            Self::TwoWays { .. } => "merge the adapters into the base, where both kinds are exact",
            Self::Uneven { .. } => {
                "give all of them one rank (lora-tool resize --uniform), merge it, or write another convention"
            }
            Self::Budget => "give a rank, an energy or an error",
        }
    }
}
