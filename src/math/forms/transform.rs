//! Changes of a weight that the weight itself goes into.

use super::chain::Chain;
use crate::math::linalg::low_rank::LowRank;

/// What becomes of a weight W, out × in.
#[derive(Debug, Clone)]
pub enum Transform {
    /// left · W · right + plus.
    Linear {
        /// out × out.
        left: Chain,
        /// in × in.
        right: Chain,
        /// out × in.
        plus: Option<LowRank>,
    },
    /// W + W ⊙ by + plus.
    Gate {
        /// out × in.
        by: LowRank,
        /// out × in.
        plus: Option<LowRank>,
    },
}

impl Transform {
    /// W · right.
    pub fn right(right: Chain) -> Self {
        Self::Linear { left: Chain::default(), right, plus: None }
    }

    /// left · W.
    pub fn left(left: Chain) -> Self {
        Self::Linear { left, right: Chain::default(), plus: None }
    }

    /// The same of a weight that is stored transposed.
    #[must_use]
    pub fn transposed(&self) -> Self {
        match self {
            Self::Gate { by, plus } => {
                Self::Gate { by: by.transposed(), plus: plus.as_ref().map(LowRank::transposed) }
            }
            Self::Linear { left, right, plus } => Self::Linear {
                left: right.transposed(),
                right: left.transposed(),
                plus: plus.as_ref().map(LowRank::transposed),
            },
        }
    }
}
