//! mlx-lm's `adapters.safetensors`: `<path>.lora_a` (in × rank) and `.lora_b` (rank × out), the paths
//! transformers' own (mlx-lm `tuner/lora.py`, `tuner/dora.py`). A reader turns both around, so that
//! above here they are A and B as everywhere.

use super::{Convention, Key, MissingAlpha, Names, Output, Part, ScalePlace};

pub(super) static CONVENTION: Convention = Convention {
    name: "mlx",
    summary: "adapter_config.json and adapters.safetensors, dotted paths, one scale",
    missing_alpha: MissingAlpha::Unknown,
    scale: ScalePlace::Uniform,
    names: Names::Dotted,
    output: Output::Directory("adapters.safetensors"),
    parse,
    format,
    recognises,
};

/// Last parts of the paths of embeddings, whose factors are spelled like all others.
const EMBEDDINGS: [&str; 4] = ["embed_tokens", "wte", "word_embeddings", "tok_embeddings"];

fn is_embedding(module: &str) -> bool {
    EMBEDDINGS.contains(&module.rsplit('.').next().unwrap_or_default())
}

fn parse(key: &str) -> Option<Key> {
    let (module, ending) = key.rsplit_once('.').filter(|(module, _)| !module.is_empty())?;
    let part = match (ending, is_embedding(module)) {
        ("lora_a", false) => Part::Down,
        ("lora_b", false) => Part::Up,
        ("lora_a", true) => Part::EmbeddingDown,
        ("lora_b", true) => Part::EmbeddingUp,
        ("m", _) => Part::Magnitude,
        _ => return None,
    };
    Some(Key { module: module.to_owned(), part })
}

fn format(key: &Key) -> Option<String> {
    let ending = match (key.part, is_embedding(&key.module)) {
        (Part::Down, false) | (Part::EmbeddingDown, true) => "lora_a",
        (Part::Up, false) | (Part::EmbeddingUp, true) => "lora_b",
        (Part::Magnitude, _) => "m",
        _ => return None,
    };
    Some(format!("{}.{ending}", key.module))
}

fn recognises(key: &str) -> bool {
    key.ends_with(".lora_a") && parse(key).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parse_undoes_format(
            path in prop::collection::vec("[a-z][a-z0-9_]{1,8}|[0-9]{1,2}|wte|embed_tokens", 1..6),
            index in 0usize..5,
        ) {
            let parts = [
                Part::Down, Part::Up, Part::EmbeddingDown, Part::EmbeddingUp, Part::Magnitude,
            ];
            let key = Key { module: path.join("."), part: parts[index] };
            if let Some(text) = format(&key) {
                prop_assert_eq!(parse(&text), Some(key));
            } else {
                let embedding = matches!(key.part, Part::EmbeddingDown | Part::EmbeddingUp);
                prop_assert_ne!(embedding, is_embedding(&key.module));
            }
        }

        #[test]
        fn no_key_panics(text in "\\PC{0,40}|([a-z_.]|lora_a|\\.){0,12}") {
            let _ = parse(&text);
        }
    }
}
