//! Tied embeddings: a checkpoint that stores one matrix for the input embedding and the output head.

use serde_json::{Map, Value};

use crate::error::Result;
use crate::format::Checkpoint;
use crate::format::json::model_config;

/// The stored input embedding of a tied pair, and the name its missing head would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tied {
    /// The stored embedding's name.
    pub(crate) embedding: String,
    /// The head's name, which the base lacks.
    pub(crate) head: String,
}

const EMBEDDINGS: [&str; 5] = [
    "model.language_model.embed_tokens.weight",
    "model.embed_tokens.weight",
    "embed_tokens.weight",
    "transformer.wte.weight",
    "wte.weight",
];

/// The tied pair of a base, if its config (or the absence of a head) says that it has one.
///
/// # Errors
/// If there is a config that cannot be read: whether the pair is tied is then unknown.
pub(crate) fn find(base: &Checkpoint) -> Result<Option<Tied>> {
    let [component] = base.components.as_slice() else { return Ok(None) };
    let Some(config) = model_config(&component.directory)? else { return Ok(None) };
    if base.names().any(|name| name.ends_with("lm_head.weight")) || !says_tied(&config) {
        return Ok(None);
    }
    Ok(base.names().find_map(|name| {
        let (above, _) = EMBEDDINGS
            .iter()
            .find_map(|ending| Some((name.strip_suffix(ending)?, ending)))
            .filter(|(above, _)| above.is_empty() || above.ends_with(['.', '/']))?;
        Some(Tied { embedding: name.to_owned(), head: format!("{above}lm_head.weight") })
    }))
}

fn says_tied(config: &Map<String, Value>) -> bool {
    const FLAG: &str = "tie_word_embeddings";
    let text = config.get("text_config").and_then(|text| text.get(FLAG));
    if let Some(tied) = config.get(FLAG).and_then(Value::as_bool).or_else(|| text?.as_bool()) {
        return tied;
    }
    // transformers ties by default where the config is silent; only a language model has a head.
    let architectures = config.get("architectures").and_then(Value::as_array);
    architectures.is_some_and(|names| {
        names
            .iter()
            .filter_map(Value::as_str)
            .any(|name| name.contains("CausalLM") || name.contains("LMHead"))
    })
}
