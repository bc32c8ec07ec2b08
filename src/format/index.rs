//! `*.safetensors.index.json`: which shard holds which tensor.

use std::collections::BTreeMap;
use std::path::{Component as PathPart, Path};

use serde_json::{Map, Value};

use super::access::read_small;
use crate::error::{ErrorKind, Locate, Result};

/// How an index file's name ends.
pub const INDEX_SUFFIX: &str = ".safetensors.index.json";

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
        let text = read_small(path).in_file(path)?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(&text, file_name).map_err(|error| error.in_file(path))
    }

    /// As [`Index::open`], from the text itself.
    ///
    /// # Errors
    /// As [`Index::open`], without a file named.
    pub fn parse(text: &[u8], file_name: String) -> Result<Self> {
        let bad = |reason: String| ErrorKind::BadIndex { reason };
        let document: Map<String, Value> =
            serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
        let entries = document
            .get("weight_map")
            .and_then(Value::as_object)
            .ok_or_else(|| bad("it has no `weight_map`".to_owned()))?;
        let mut weight_map = BTreeMap::new();
        for (tensor, shard) in entries {
            let shard = shard
                .as_str()
                .ok_or_else(|| bad(format!("the shard of `{tensor}` is no string")))?;
            let inside = !shard.is_empty()
                && Path::new(shard).components().all(|part| matches!(part, PathPart::Normal(_)));
            if !inside {
                return Err(ErrorKind::IndexEscapes { shard: shard.to_owned() }.into());
            }
            weight_map.insert(tensor.clone(), shard.to_owned());
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
    ) -> Vec<u8> {
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
        let mut text = serde_json::to_vec_pretty(&document).unwrap_or_default();
        text.push(b'\n');
        text
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
        let value: Value = serde_json::from_slice(&again).expect("JSON");
        assert_eq!(value["metadata"], serde_json::json!({"total_size": 9, "note": "x"}));
        assert_eq!(value["weight_map"], serde_json::json!({"b": "t"}));
        assert_eq!(value["other"], serde_json::json!([1]));
    }
}
