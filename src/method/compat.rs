//! Peers whose arithmetic can be reproduced where it differs from the formula.

/// A peer whose arithmetic can be reproduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Compat {
    /// PEFT's `add_weighted_adapter`.
    Peft,
    /// kohya's `merge_lora.py`.
    Kohya,
    /// mergekit's generalised task arithmetic.
    Mergekit,
}

impl Compat {
    /// The peer's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Peft => "peft",
            Self::Kohya => "kohya",
            Self::Mergekit => "mergekit",
        }
    }
}
