//! `*.safetensors.index.json`: which shard holds which tensor.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component as PathPart, Path};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::access::read_bounded;
use super::header::MOST_TENSORS;
use super::json::Budget;
use crate::error::{ErrorKind, Locate, Result, clipped};

/// How an index file's name ends.
pub const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// Longest index that is read: that of a model of a hundred thousand tensors has ten million bytes.
const LONGEST: u64 = 32 << 20;

/// A parsed index; what is not understood is kept and written back.
#[derive(Debug, Clone)]
pub struct Index {
    /// The index's file name.
    pub file_name: String,
    /// Tensor name → shard file name.
    pub weight_map: BTreeMap<String, String>,
    document: Map<String, Value>,
}

impl Index {
    /// Reads and checks an index: every shard name stays inside the index's directory.
    ///
    /// # Errors
    /// If the file cannot be read, is not an index, or names a shard outside its directory.
    pub fn open(path: &Path) -> Result<Self> {
        let text = read_bounded(path, LONGEST).in_file(path)?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(&text, file_name).map_err(|error| error.in_file(path))
    }

    /// As [`Index::open`], from the text itself.
    ///
    /// # Errors
    /// As [`Index::open`], without a file named.
    pub fn parse(text: &[u8], file_name: String) -> Result<Self> {
        let bad = |reason: String| ErrorKind::BadIndex { reason };
        let Parsed { weight_map, document } =
            serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
        let weight_map = weight_map.ok_or_else(|| bad("it has no `weight_map`".to_owned()))?;
        for shard in weight_map.values() {
            let inside = !shard.is_empty()
                && Path::new(shard).components().all(|part| matches!(part, PathPart::Normal(_)));
            if !inside {
                return Err(ErrorKind::IndexEscapes { shard: shard.clone() }.into());
            }
        }
        if weight_map.is_empty() {
            return Err(bad("its `weight_map` is empty".to_owned()).into());
        }
        Ok(Self { file_name, weight_map, document })
    }

    /// The index for other shards: the same document, with its tensors, sizes and shards replaced.
    ///
    /// `total_parameters`, where the document has it, is rewritten too.
    pub fn rewrite(
        document: Option<&Self>,
        weight_map: &BTreeMap<String, String>,
        total_size: u64,
        total_parameters: u64,
    ) -> String {
        let mut document = document.map(|index| index.document.clone()).unwrap_or_default();
        let metadata = document.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if !metadata.is_object() {
            *metadata = Value::Object(Map::new());
        }
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("total_size".to_owned(), total_size.into());
            if metadata.contains_key("total_parameters") {
                metadata.insert("total_parameters".to_owned(), total_parameters.into());
            }
        }
        let map = weight_map.iter().map(|(name, file)| (name.clone(), file.as_str().into()));
        document.insert("weight_map".to_owned(), Value::Object(map.collect()));
        let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// An index as it is read: the map in its own type, the rest as a tree of few values.
struct Parsed {
    weight_map: Option<BTreeMap<String, String>>,
    document: Map<String, Value>,
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        from.deserialize_map(IndexVisitor)
    }
}

struct IndexVisitor;

impl<'de> Visitor<'de> for IndexVisitor {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Parsed, A::Error> {
        let mut parsed = Parsed { weight_map: None, document: Map::new() };
        let budget = Budget::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "weight_map" {
                parsed.weight_map = Some(map.next_value_seed(WeightMap)?);
                // Where it stands is kept; its entries are put in when the index is written.
                parsed.document.insert(key, Value::Null);
            } else {
                parsed.document.insert(key, map.next_value_seed(&budget)?);
            }
        }
        Ok(parsed)
    }
}

/// Tensor → shard, each tensor once.
struct WeightMap;

impl<'de> DeserializeSeed<'de> for WeightMap {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        from: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WeightMap {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`weight_map` to be an object of shards' names")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut entries: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        const MOST: usize = 4 * MOST_TENSORS;
        let mut map = BTreeMap::new();
        while let Some(tensor) = entries.next_key::<String>()? {
            let shard = entries.next_value().map_err(|error| {
                A::Error::custom(format!("the shard of `{}`: {error}", clipped(&tensor)))
            })?;
            if map.len() == MOST {
                return Err(A::Error::custom(format!("more than {MOST} tensors")));
            }
            map.insert(tensor, shard);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(shard: &str) -> Result<Index> {
        let text = serde_json::json!({"weight_map": {"a": shard}}).to_string();
        Index::parse(text.as_bytes(), "model.safetensors.index.json".into())
    }

    #[test]
    fn shards_stay_inside() {
        for shard in ["../x.safetensors", "/etc/passwd", "a/../../x", "", "./x", "a/./.."] {
            assert!(parse(shard).is_err(), "{shard}");
        }
        assert!(parse("sub/model-00001-of-00002.safetensors").is_ok());
    }

    #[test]
    fn rewriting_keeps_what_it_does_not_know() {
        let text =
            br#"{"metadata":{"total_size":1,"note":"x"},"weight_map":{"a":"s"},"other":[1]}"#;
        let index = Index::parse(text, "i".into()).expect("parses");
        let map = BTreeMap::from([("b".to_owned(), "t".to_owned())]);
        let again = Index::rewrite(Some(&index), &map, 9, 3);
        let value: Value = serde_json::from_str(&again).expect("JSON");
        assert_eq!(value["metadata"], serde_json::json!({"total_size": 9, "note": "x"}));
        assert_eq!(value["weight_map"], serde_json::json!({"b": "t"}));
        assert_eq!(value["other"], serde_json::json!([1]));
    }
}
