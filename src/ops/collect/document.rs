//! What the headers of a collection say, as plain data; `docs/collections.md` describes it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::adapter::module::Kind;
use crate::error::{CollectionError, ErrorKind, Locate, Result};
use crate::format::{Checkpoint, Metadata};

/// The version of the form of the files.
pub(super) const VERSION: u32 = 1;
/// The header's entry that says all this.
const ENTRY: &str = "lora_tool.collection";
/// The file of shared directions, and that of the adapters' cores.
pub(super) const BASES: &str = "bases.safetensors";
pub(super) const ADAPTERS: &str = "adapters.safetensors";

/// A module of the collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ModuleSpec {
    /// Its name in the collection's convention.
    pub(super) name: String,
    /// Its kind of layer.
    pub(super) kind: Kind,
    /// m.
    pub(super) outputs: usize,
    /// n; of a convolution, channels × kernel.
    pub(super) inputs: usize,
}

impl ModuleSpec {
    /// The directions that its updates share on either side.
    pub(super) fn directions(&self, rank: usize) -> usize {
        rank.min(self.outputs).min(self.inputs)
    }
}

/// What the file of directions says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Shared {
    pub(super) version: u32,
    /// SHA-256 of the tensors' bytes, by which the other file knows this one.
    pub(super) id: String,
    /// Directions of a module, where it has as many.
    pub(super) rank: usize,
    /// Groups of adapters that have directions of their own.
    pub(super) clusters: usize,
    /// The convention that modules are named in.
    pub(super) convention: String,
    pub(super) modules: Vec<ModuleSpec>,
}

/// What the file of cores says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Members {
    pub(super) version: u32,
    /// Of the directions that the cores are for.
    pub(super) bases: String,
    pub(super) adapters: Vec<Member>,
}

/// One adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) cluster: usize,
    /// ‖Δ − what is stored‖ / ‖Δ‖.
    pub(super) error: f64,
    /// ‖Δ‖.
    pub(super) norm: f64,
    /// The rank of each module's core; 0 of one that the adapter does not have.
    pub(super) ranks: Vec<usize>,
    /// PEFT's config, where the adapter had one.
    pub(super) config: Option<Map<String, Value>>,
}

/// Rows of K numbers that a core of some rank is stored in: two factors where these are smaller, else all of it.
pub(super) fn core_rows(rank: usize, directions: usize) -> usize {
    if 2 * rank < directions { 2 * rank } else { directions }
}

/// The header's metadata.
///
/// # Errors
/// None that data can cause; what serialising says.
pub(super) fn metadata(document: &impl Serialize) -> Result<Metadata> {
    let text = serde_json::to_string(document)
        .map_err(|error| CollectionError::Damaged(error.to_string()))?;
    Ok(Metadata::from_iter([
        ("format".to_owned(), "pt".to_owned()),
        (ENTRY.to_owned(), text),
        ("lora_tool".to_owned(), json!({ "version": env!("CARGO_PKG_VERSION") }).to_string()),
    ]))
}

/// Reads what a file of a collection says.
///
/// # Errors
/// A file that is none, another version, a document that is not whole.
pub(super) fn read<T: DeserializeOwned>(file: &Checkpoint) -> Result<T> {
    parse(file).in_file(&file.path)
}

fn parse<T: DeserializeOwned>(file: &Checkpoint) -> std::result::Result<T, ErrorKind> {
    let metadata = file.shards.first().and_then(|shard| shard.header.metadata.as_ref());
    let text = metadata.and_then(|metadata| metadata.get(ENTRY));
    let Some(text) = text else {
        return Err(CollectionError::NoCollection(format!("no `{ENTRY}` in its header")).into());
    };
    let damaged = |error: serde_json::Error| CollectionError::Damaged(error.to_string());
    let tree: Value = serde_json::from_str(text).map_err(damaged)?;
    let version = tree.get("version");
    if version.and_then(Value::as_u64) != Some(u64::from(VERSION)) {
        let found = version.map_or("unknown".to_owned(), Value::to_string);
        return Err(CollectionError::Version { found, known: VERSION }.into());
    }
    Ok(serde_json::from_value(tree).map_err(damaged)?)
}
