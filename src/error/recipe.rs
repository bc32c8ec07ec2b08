//! What can be wrong in a recipe's text, each with its place.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in a text; both counted from 1.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What is wrong, and where. The place is shown behind the file's name.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct RecipeError {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub problem: RecipeProblem,
}

/// What can be wrong at one place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeProblem {
    /// No YAML.
    #[error("not YAML: {0}")]
    Syntax(String),
    /// YAML that a recipe has no use for, or more of it than one needs.
    #[error("{0}")]
    Beyond(&'static str),
    /// A key nobody knows.
    #[error("unknown key `{key}`; {owner} takes {all}")]
    UnknownKey {
        /// The key.
        key: String,
        /// What it was given to.
        owner: &'static str,
        /// The keys there are.
        all: String,
        /// What to do instead, if that can be told.
        instead: Option<String>,
    },
    /// One key, twice.
    #[error("`{key}` is given twice, first in line {first}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// The line of the first.
        first: usize,
    },
    /// A key that must be there.
    #[error("{owner} needs `{key}`")]
    MissingKey {
        /// What needs it.
        owner: &'static str,
        /// The key.
        key: &'static str,
    },
    /// Something else than was to stand there.
    #[error("{key}: expected {expected}, found {found}")]
    Expected {
        /// Whose value it is, as it is shown.
        key: String,
        /// What can stand there.
        expected: String,
        /// What does.
        found: String,
    },
    /// A parameter that the method does not take.
    #[error("`{method}` does not take `{name}`; it takes {takes}")]
    NotTaken {
        /// The method.
        method: &'static str,
        /// The parameter.
        name: String,
        /// What it takes.
        takes: String,
        /// What may be meant.
        near: Option<String>,
    },
    /// A key that the recipe's verb has no use for.
    #[error("`{key}` is {reason}")]
    OtherVerb {
        /// The key.
        key: String,
        /// For what it is, and what is missing.
        reason: &'static str,
    },
    /// Two keys that cannot stand together.
    #[error("{0}")]
    Together(String),
    /// A name that the method's list has not.
    #[error("there is no method `{name}`; there are {all}")]
    UnknownMethod {
        /// The name.
        name: String,
        /// All there are.
        all: String,
        /// The name most like it.
        near: Option<String>,
    },
    /// A rule that decides nothing.
    #[error("no module {}is left for the rule `{rule}`", of(adapter.as_deref()))]
    UnusedRule {
        /// The rule's regular expression.
        rule: String,
        /// The adapter; all if `None`.
        adapter: Option<PathBuf>,
    },
}

fn of(adapter: Option<&Path>) -> String {
    adapter.map(|adapter| format!("of {} ", adapter.display())).unwrap_or_default()
}

impl RecipeError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> Option<String> {
        match &self.problem {
            RecipeProblem::UnknownKey { instead, .. } => instead.clone(),
            RecipeProblem::UnknownMethod { near, .. } | RecipeProblem::NotTaken { near, .. } => {
                near.as_ref().map(|near| format!("did you mean `{near}`?"))
            }
            RecipeProblem::UnusedRule { .. } => Some(
                "`lora-tool inspect ADAPTER --modules` lists the names; the first rule that matches decides"
                    .to_owned(),
            ),
            RecipeProblem::Expected { found, .. } if found.ends_with("in quotes") => {
                Some("leave out the quotes".to_owned())
            }
            _ => None,
        }
    }
}
