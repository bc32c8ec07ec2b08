//! Tied embeddings: a checkpoint that stores one matrix for the input embedding and the output head.

use serde_json::Value;

use crate::format::access::read_small;
use crate::format::{Checkpoint, Component};

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
pub(crate) fn find(base: &Checkpoint) -> Option<Tied> {
    let [component] = base.components.as_slice() else { return None };
    let config = config(component)?;
    if base.names().any(|name| name.ends_with("lm_head.weight")) || !says_tied(&config) {
        return None;
    }
    base.names().find_map(|name| {
        let (above, _) = EMBEDDINGS
            .iter()
            .find_map(|ending| Some((name.strip_suffix(ending)?, ending)))
            .filter(|(above, _)| above.is_empty() || above.ends_with(['.', '/']))?;
        Some(Tied { embedding: name.to_owned(), head: format!("{above}lm_head.weight") })
    })
}

/// A component's `config.json`, if it has a readable one.
pub(crate) fn config(component: &Component) -> Option<Value> {
    let text = read_small(&component.directory.join("config.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

fn says_tied(config: &Value) -> bool {
    let flag = |config: &Value| config.get("tie_word_embeddings").and_then(Value::as_bool);
    if let Some(tied) = flag(config).or_else(|| flag(config.get("text_config")?)) {
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
