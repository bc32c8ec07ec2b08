//! llama.cpp's adapters: `blk.0.attn_q.weight.lora_a` and `.lora_b` in a GGUF file (llama.cpp
//! `convert_lora_to_gguf.py`, `src/llama-adapter.cpp`). What the names mean in a model is
//! [`super::gguf_names`]'s.

use super::{Convention, Key, MissingAlpha, Names, Output, Part, ScalePlace};

pub(super) static CONVENTION: Convention = Convention {
    name: "gguf",
    summary: "one GGUF file with llama.cpp's names, one alpha",
    missing_alpha: MissingAlpha::One,
    scale: ScalePlace::Uniform,
    names: Names::Gguf,
    output: Output::File("gguf"),
    parse,
    format,
    recognises,
};

/// The one tensor that is an embedding.
const EMBEDDING: &str = "token_embd";

fn parse(key: &str) -> Option<Key> {
    let (tensor, ending) = key.rsplit_once('.')?;
    let module = tensor.strip_suffix(".weight").filter(|module| !module.is_empty())?;
    let part = match (ending, module == EMBEDDING) {
        ("lora_a", false) => Part::Down,
        ("lora_b", false) => Part::Up,
        ("lora_a", true) => Part::EmbeddingDown,
        ("lora_b", true) => Part::EmbeddingUp,
        _ => return None,
    };
    Some(Key { module: module.to_owned(), part })
}

fn format(key: &Key) -> Option<String> {
    let ending = match (key.part, key.module == EMBEDDING) {
        (Part::Down, false) | (Part::EmbeddingDown, true) => "lora_a",
        (Part::Up, false) | (Part::EmbeddingUp, true) => "lora_b",
        _ => return None,
    };
    Some(format!("{}.weight.{ending}", key.module))
}

fn recognises(key: &str) -> bool {
    key.ends_with(".weight.lora_a")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parse_undoes_format(
            module in "blk\\.[0-9]{1,2}\\.[a-z_]{1,12}|output|token_embd",
            index in 0usize..4,
        ) {
            let parts = [Part::Down, Part::Up, Part::EmbeddingDown, Part::EmbeddingUp];
            let key = Key { module, part: parts[index] };
            if let Some(text) = format(&key) {
                prop_assert_eq!(parse(&text), Some(key));
            }
        }

        #[test]
        fn no_key_panics(text in "\\PC{0,40}|([a-z_.]|lora_a|weight|\\.){0,12}") {
            let _ = parse(&text);
        }
    }
}
