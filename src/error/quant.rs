//! What can go wrong with weights that are stored as codes and scales.

/// See [`ErrorKind::Quant`](super::ErrorKind::Quant).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// Codes without their scale.
    #[error("it is stored as {scheme}, and `{missing}` is nowhere in the checkpoint")]
    Missing {
        /// How the codes are stored.
        scheme: &'static str,
        /// The companion that is not there.
        missing: String,
    },
    /// 8-bit floats without a scale, among others that have one.
    #[error("it is {dtype} and has no scale, though {why}")]
    NoScale {
        /// Its dtype.
        dtype: String,
        /// What says that it should have one.
        why: String,
    },
    /// A scale whose weight is not there.
    #[error("it belongs to a quantised weight, and `{weight}` is not in the checkpoint")]
    Orphan {
        /// The weight it would belong to.
        weight: String,
    },
    /// A companion of a shape or dtype that does not fit its codes.
    #[error("its shape is {found:?} ({dtype}); with {weight} it should be {expected}")]
    Grid {
        /// What would fit.
        expected: String,
        /// Its shape.
        found: Vec<usize>,
        /// Its dtype.
        dtype: String,
        /// What it belongs to, with its shape.
        weight: String,
    },
    /// A scale that is no number.
    #[error("element {index} of this scale is {value}")]
    ScaleNotFinite {
        /// Flat index.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// A code that is no number.
    #[error("element {index} is {value}")]
    CodeNotFinite {
        /// Flat index.
        index: usize,
        /// What it is.
        value: &'static str,
    },
    /// A column of a group that there is not.
    #[error("column {column} names group {group}, and there are {groups}")]
    Group {
        /// The column.
        column: usize,
        /// What it names.
        group: i64,
        /// Groups there are.
        groups: usize,
    },
    /// The config says one thing, the tensors another.
    #[error("the config says {config}, the tensors say {tensors}")]
    Conflict {
        /// What the config says.
        config: String,
        /// What the tensors say.
        tensors: String,
    },
    /// A description beside the codes that cannot be read.
    #[error("it does not describe how its weight is quantised: {reason}")]
    BadState {
        /// Why.
        reason: String,
    },
    /// A scheme that is not read.
    #[error("{what} cannot be read")]
    Unsupported {
        /// The scheme.
        what: String,
    },
    /// A scheme that is read, and of which no reference writer's arithmetic is known.
    #[error("how {encoding} is written is not known")]
    Unwritten {
        /// The encoding.
        encoding: String,
    },
    /// An update that is lost where its weight is quantised again.
    #[error(
        "{kept} % of its update survives where it is quantised again, and at least {least} % shall"
    )]
    Survival {
        /// What survives, in percent.
        kept: f64,
        /// What shall, in percent.
        least: f64,
    },
    /// Codes that two readers read differently.
    #[error("{what}")]
    Ambiguous {
        /// What is read differently.
        what: String,
    },
}

impl QuantError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::NoScale { .. } | Self::Orphan { .. } => {
                "the checkpoint is incomplete, or its tensors were renamed; download it again"
            }
            Self::Grid { .. } | Self::Group { .. } | Self::BadState { .. } => {
                "the file was damaged or edited; download it again"
            }
            Self::ScaleNotFinite { .. } | Self::CodeNotFinite { .. } => {
                "the quantisation failed there; use another conversion of this model"
            }
            Self::Conflict { .. } => {
                "is the config.json the one of these weights? correct the one that is wrong"
            }
            Self::Unsupported { .. } => {
                "use the 16-bit original, or a conversion in fp8, int4, NF4, MXFP4, NVFP4, GPTQ, AWQ, MLX or GGUF"
            }
            Self::Unwritten { .. } => {
                "use --quantized 16bit or hybrid, which write such weights as plain numbers"
            }
            Self::Survival { .. } => {
                "use --quantized hybrid or 16bit, --rounding stochastic, or merge into the 16-bit original; \
                 --min-survival takes less"
            }
            Self::Ambiguous { .. } => {
                "say `checkpoint_format` in quantization_config (gptq or gptq_v2), or use another conversion"
            }
        }
    }
}
