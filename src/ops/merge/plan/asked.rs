//! What a merge was asked to do, as its result's header says it, and back.

use std::io;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::options::Options;
use crate::error::{ErrorKind, Result};
use crate::format::{Access, Checkpoint};
use crate::ops::shared::inputs::AdapterInput;
use crate::ops::shared::provenance;

/// Options that change no byte of a tensor, or that the header says in another place.
const ELSEWHERE: [&str; 14] = [
    "base",
    "adapters",
    "output",
    "recipe",
    "provenance",
    "force",
    "resume",
    "verify",
    "receipt",
    "card",
    "threads",
    "block_rows",
    "residual",
    "residual_rank",
];

/// Options that name another checkpoint, of which the header has the files' samples and not the path.
pub(in crate::ops) const CHECKPOINTS: [&str; 2] = ["quantize_like", "reference"];

/// The adapters' weights and rules, in order.
const WEIGHTS: &str = "weights";
const RULES: &str = "rules";

/// All options that are not at their defaults, with the adapters' weights. No paths are among them.
///
/// # Errors
/// If one of them cannot be written down, or a checkpoint among them cannot be opened.
pub(in crate::ops) fn asked(options: &Options) -> Result<Map<String, Value>> {
    let plain = entries(&Options::default())?;
    let mut asked = entries(options)?;
    asked.retain(|key, value| !ELSEWHERE.contains(&key.as_str()) && plain.get(key) != Some(value));
    for (option, path) in CHECKPOINTS.into_iter().zip([&options.quantize_like, &options.reference])
    {
        if let Some(path) = path {
            let checkpoint = Checkpoint::open(path, Access::Read)?;
            let samples = provenance::samples(&provenance::shards(&checkpoint))?;
            asked.insert(option.to_owned(), samples.into());
        }
    }
    asked.insert(WEIGHTS.to_owned(), options.adapters.iter().map(|input| input.weight).collect());
    let rules = options.adapters.iter().map(|input| serde_json::to_value(&input.rules));
    let rules = rules.collect::<std::result::Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let none = serde_json::to_value(AdapterInput::new("", 1.0).rules).map_err(io::Error::other)?;
    if rules.iter().any(|rules| *rules != none) {
        asked.insert(RULES.to_owned(), rules.into());
    }
    Ok(asked)
}

/// All options but those about paths, which need be no text.
fn entries(options: &Options) -> Result<Map<String, Value>> {
    let mut options = Options {
        base: PathBuf::new(),
        adapters: Vec::new(),
        output: PathBuf::new(),
        receipt: None,
        residual: None,
        quantize_like: None,
        reference: None,
        ..options.clone()
    };
    options.open.access = Access::default();
    match serde_json::to_value(options).map_err(io::Error::other)? {
        Value::Object(entries) => Ok(entries),
        _ => Ok(Map::new()),
    }
}

/// The options that were asked for, with the base and the adapters at these places.
///
/// # Errors
/// If they are none that this version knows, or for another number of adapters.
pub(in crate::ops) fn restored(
    mut asked: Map<String, Value>,
    base: PathBuf,
    adapters: &[PathBuf],
) -> Result<Options> {
    let bad = |reason: String| {
        ErrorKind::BadOption(format!(
            "its header says how it was made in a way that is not understood: {reason}"
        ))
    };
    let number = adapters.len();
    let mut take = |key: &str| asked.remove(key);
    let weights: Vec<f64> = match take(WEIGHTS) {
        Some(weights) => serde_json::from_value(weights).map_err(|error| bad(error.to_string()))?,
        None => vec![1.0; number],
    };
    let rules = match take(RULES) {
        Some(rules) => serde_json::from_value(rules).map_err(|error| bad(error.to_string()))?,
        None => vec![AdapterInput::new("", 1.0).rules; number],
    };
    if weights.len() != number || rules.len() != number {
        return Err(bad(format!("{} weights of {number} adapters", weights.len())).into());
    }
    let options: Options =
        serde_json::from_value(Value::Object(asked)).map_err(|error| bad(error.to_string()))?;
    let adapters = adapters.iter().zip(weights).zip(rules);
    let adapters =
        adapters.map(|((path, weight), rules)| AdapterInput { path: path.clone(), weight, rules });
    Ok(Options { base, adapters: adapters.collect(), provenance: true, ..options })
}
