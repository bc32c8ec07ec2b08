//! Where in an adapter something was found.

use serde::Serialize;

/// Where in an adapter a rule finds something.
#[derive(Debug, Clone, Serialize)]
pub struct Place {
    /// A module, tensor or field by name.
    pub name: String,
    /// What it is multiplied by there, relative to what it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
}

impl From<&str> for Place {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), factor: None }
    }
}

/// Nothing, or the places; none of them means the adapter as a whole.
pub(super) type Found = Option<Vec<Place>>;
