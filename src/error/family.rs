//! What can go wrong with a module because of its family.

/// What helps where a verb needs factors, and an update has none without the base.
pub(super) const FACTORS_NEED_BASE: &str = "merge it into a base instead (lora-tool merge), where it is exact; or make factors of it first: lora-tool \
     convert ADAPTER --as lora --rank auto --reference BASE -o LORA";

/// See [`ErrorKind::Family`](super::ErrorKind::Family).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FamilyError {
    /// A tensor that the family has no use for.
    #[error("the module is of the family {family}, which has no such tensor")]
    StrayPart {
        /// The family's name.
        family: &'static str,
    },
    /// An update that has as many values as the weight.
    #[error("a {family} update is as large as the weight, so it has no low-rank factors")]
    NotLowRank {
        /// The family's name.
        family: &'static str,
    },
    /// A stored position that is none of what it points into.
    #[error("its element {index} is {value}, and positions are whole numbers below {limit}")]
    Position {
        /// The element's place in the tensor.
        index: usize,
        /// What it is.
        value: f64,
        /// How many positions there are.
        limit: u64,
    },
    /// More values than the weight has elements.
    #[error("it has {count} values for a weight of {outputs} × {inputs}")]
    TooManyValues {
        /// How many.
        count: usize,
        /// Rows of the weight.
        outputs: usize,
        /// Its columns.
        inputs: usize,
    },
    /// The weight's shape is left to the base.
    #[error("the tensors of a {family} module do not tell the weight's shape")]
    UnknownShape {
        /// The family's name.
        family: &'static str,
    },
    /// An update that depends on the weight with others, out of order.
    #[error(
        "an adapter named before it depends on the weight it finds (DoRA, OFT, IA3, …): such an adapter merges last, and only one of them"
    )]
    Order,
    /// An update that needs a whole weight, of which the base holds a part elsewhere.
    #[error(
        "the base fuses or splits this weight, and a {family} update cannot be applied to a part of it"
    )]
    Part {
        /// The family's name.
        family: &'static str,
    },
    /// Rows in llama.cpp's order, which only factors can be put in.
    #[error(
        "llama.cpp reorders the rows of this weight, and of a {family} module only the two factors of an update \
         can be reordered alike"
    )]
    Reordered {
        /// The family's name.
        family: &'static str,
    },
    /// A fused projection whose rows lie head by head.
    #[error(
        "its rows are queries, keys and values of one head after another, as DiffSynth-Studio writes MiniMax-H3's; \
         every other writer has all queries first"
    )]
    ByHeads,
    /// Adapters of nothing but replacements, where factors are wanted.
    #[error("there are no factors in it, only tensors that replace the base's")]
    NoFactors,
}

impl FamilyError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::StrayPart { .. } => {
                "the file mixes two ways to say one update; save the adapter again"
            }
            Self::NotLowRank { .. } | Self::UnknownShape { .. } => FACTORS_NEED_BASE,
            Self::Position { .. } | Self::TooManyValues { .. } => {
                "the adapter is of another base, or damaged: compare its config with the base's shapes"
            }
            Self::Reordered { .. } => {
                "merge it into the safetensors checkpoint that the GGUF file was made of"
            }
            Self::ByHeads => {
                "put its rows in the order queries, keys, values (diffusers' load_lora_weights does), and save the \
                 factors without `.default` in their names"
            }
            Self::NoFactors => "merge it (lora-tool merge), which puts those in place",
            Self::Part { .. } => "merge it into a base of the layout that it was trained on",
            Self::Order => {
                "name that adapter last, as in `lora-tool merge BASE chat dora -o OUT`, or merge in two steps"
            }
        }
    }
}
