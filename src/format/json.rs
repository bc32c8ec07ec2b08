//! JSON of strangers: trees whose number of values is bounded, because a parsed value takes some forty
//! times the room of its text.

use std::cell::Cell;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::access::read_config_if_there;
use crate::error::{ErrorKind, Locate, Result};

/// Values in one tree; the configs of models with thousands of experts hold some ten thousand.
const MOST_VALUES: usize = 200_000;

/// A model's config beside its weights.
pub const MODEL_CONFIG: &str = "config.json";

/// Parses an object.
///
/// # Errors
/// If the text is no JSON object, or one of too many values.
pub fn object(text: &[u8]) -> serde_json::Result<Map<String, Value>> {
    match tree(text)? {
        Value::Object(map) => Ok(map),
        _ => Err(serde_json::Error::custom("it is no JSON object")),
    }
}

/// Parses any value.
///
/// # Errors
/// If the text is no JSON, or holds too many values.
pub fn tree(text: &[u8]) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Budget::new().value(&mut reader)?;
    reader.end().map(|()| value)
}

/// The `config.json` of a directory; `None` only where there is none. A model whose config cannot be
/// read is not a model without one: whether its embeddings are tied, say, is then unknown.
///
/// # Errors
/// If it is no regular file, too long, or no JSON object.
pub fn model_config(directory: &Path) -> Result<Option<Map<String, Value>>> {
    let path = directory.join(MODEL_CONFIG);
    let Some(text) = read_config_if_there(&path).in_file(&path)? else { return Ok(None) };
    let document =
        object(&text).map_err(|error| ErrorKind::BadConfig { reason: error.to_string() });
    document.map(Some).in_file(&path)
}

/// The fields in which transformers' classes say how many experts a layer has.
const EXPERT_COUNTS: [&str; 4] =
    ["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"];

/// How many experts a layer of the model has, by its config or that of the language model in it.
pub fn expert_count(config: &Map<String, Value>) -> Option<usize> {
    let text = config.get("text_config").and_then(Value::as_object);
    EXPERT_COUNTS.into_iter().find_map(|field| {
        let number = config.get(field).or_else(|| text?.get(field))?.as_u64()?;
        usize::try_from(number).ok().filter(|number| *number > 0)
    })
}

/// What is left of the values that one text may have.
pub(super) struct Budget(Cell<usize>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Cell::new(MOST_VALUES))
    }

    /// Reads the next value, and counts all that is in it.
    pub(super) fn value<'de, D: Deserializer<'de>>(
        &self,
        from: D,
    ) -> std::result::Result<Value, D::Error> {
        DeserializeSeed::deserialize(self, from)
    }
}

impl<'de> DeserializeSeed<'de> for &Budget {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Value, D::Error> {
        let left =
            self.0.get().checked_sub(1).ok_or_else(|| {
                D::Error::custom(format!("it holds more than {MOST_VALUES} values"))
            })?;
        self.0.set(left);
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Budget {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            map.insert(key, entries.next_value_seed(self)?);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_those_of_serde() {
        for text in [
            r#"{"a":[1,-2,2.5,"x\n",true,null,{}],"b":{"c":[]}}"#,
            "3",
            r#""x""#,
            "[[[]]]",
            r#"{"z":1,"a":2}"#,
        ] {
            let expected: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(tree(text.as_bytes()).expect("JSON").to_string(), expected.to_string());
        }
        for text in ["", "{", "[1,]", "{} {}", "nul"] {
            assert!(tree(text.as_bytes()).is_err(), "{text}");
        }
        assert!(object(b"[]").is_err());
    }

    #[test]
    fn too_many_values_are_an_error_however_they_are_nested() {
        for (open, close, item) in [("[", "]", "1"), (r#"{"a":["#, "]}", "[]")] {
            let items = |count: usize| vec![item; count].join(",");
            assert!(tree(format!("{open}{}{close}", items(1000)).as_bytes()).is_ok());
            let error = tree(format!("{open}{}{close}", items(MOST_VALUES)).as_bytes());
            let error = error.expect_err("too many").to_string();
            assert!(error.contains("more than 200000 values"), "{error}");
        }
    }
}
