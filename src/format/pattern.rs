//! Regular expressions in what is written down: as their text.

use regex::Regex;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text of a pattern.
pub(crate) fn serialize<S: Serializer>(pattern: &Regex, to: S) -> Result<S::Ok, S::Error> {
    pattern.as_str().serialize(to)
}

/// A pattern from its text.
///
/// # Errors
/// If it is no regular expression.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Regex, D::Error> {
    compiled(&String::deserialize(from)?)
}

fn compiled<E: Error>(text: &str) -> Result<Regex, E> {
    Regex::new(text).map_err(E::custom)
}

/// A pattern that need not be there.
pub(crate) mod optional {
    use super::{Deserialize, Deserializer, Regex, Serialize, Serializer, compiled};

    /// Its text, if there is one.
    #[allow(clippy::ref_option, reason = "the signature that serde calls")]
    pub(crate) fn serialize<S: Serializer>(
        pattern: &Option<Regex>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        pattern.as_ref().map(Regex::as_str).serialize(to)
    }

    /// From its text, if there is one.
    ///
    /// # Errors
    /// If it is no regular expression.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Regex>, D::Error> {
        let text: Option<String> = Option::deserialize(from)?;
        text.as_deref().map(compiled).transpose()
    }
}

/// Patterns, each with its number.
pub(crate) mod numbered {
    use super::{Deserialize, Deserializer, Regex, Serializer, compiled};

    /// Pairs of text and number.
    pub(crate) fn serialize<S: Serializer>(
        patterns: &[(Regex, f64)],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(patterns.iter().map(|(pattern, number)| (pattern.as_str(), number)))
    }

    /// From pairs of text and number.
    ///
    /// # Errors
    /// If a text is no regular expression.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<(Regex, f64)>, D::Error> {
        let pairs: Vec<(String, f64)> = Vec::deserialize(from)?;
        pairs.into_iter().map(|(text, number)| Ok((compiled(&text)?, number))).collect()
    }
}
