//! What can be wrong with rules about an adapter's modules.

/// See [`ErrorKind::Rule`](super::ErrorKind::Rule).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A rule that decides nothing.
    #[error("no module is left for the rule `{rule}`")]
    Unused {
        /// Its regular expression.
        rule: String,
        /// What it is about: `weight`, `include`, a parameter.
        of: &'static str,
    },
    /// An option about modules that no module's name matches, or that a later one overrules everywhere.
    #[error("no module is left for --{option} `{pattern}`")]
    NoMatch {
        /// The option.
        option: &'static str,
        /// Its regular expression.
        pattern: String,
    },
    /// A module that no rule gives a weight.
    #[error("no rule gives it a weight")]
    NoWeight,
    /// A gradient for what is in no layer.
    #[error("a gradient over the layers gives it no {of}: its name has no layer's number")]
    NoLayer {
        /// What the gradient is of.
        of: &'static str,
    },
}

impl RuleError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Unused { .. } => {
                "`lora-tool inspect ADAPTER --modules` lists the names; the first rule that matches decides"
            }
            Self::NoMatch { .. } => {
                "`lora-tool inspect ADAPTER --modules` lists the names; of --module-weight the last match wins"
            }
            Self::NoWeight => "end the list with a rule without a filter: - value: 1",
            Self::NoLayer { .. } => "give it a rule of its own before: - {filter: …, value: 1}",
        }
    }
}
