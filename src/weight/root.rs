//! Names below what wraps them: the roots of a model come and go between releases of transformers, trainers
//! and writers, while the names below them stay.

/// Parts of names that only wrap what is below them.
const WRAPPERS: [&str; 9] = [
    "base_model",
    "model",
    "language_model",
    "text_model",
    "module",
    "transformer",
    "backbone",
    "bert",
    "roberta",
];

/// A name without its leading wrappers, in its component's directory: `layers.0.mlp.up_proj.weight` of
/// `model.language_model.layers.0.mlp.up_proj.weight`.
pub(crate) fn plain(name: &str) -> String {
    let (directory, mut below) = match name.rfind('/') {
        Some(at) => name.split_at(at + 1),
        None => ("", name),
    };
    while let Some((first, rest)) = below.split_once('.') {
        if !WRAPPERS.contains(&first) || !rest.contains('.') {
            break;
        }
        below = rest;
    }
    format!("{directory}{below}")
}

/// What is before the number of a name's first layer, and so the same for all names of a stack of layers; the
/// whole name where there is no number.
pub(crate) fn stack(name: &str) -> &str {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut end = 0;
    for part in name.split('.') {
        if number(part) {
            return name.get(..end).unwrap_or(name);
        }
        end += part.len() + 1;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_told_from_parts_of_models() {
        for (name, below) in [
            ("model.layers.0.q", "layers.0.q"),
            ("model.language_model.layers.0.q", "layers.0.q"),
            ("language_model.model.layers.0.q", "layers.0.q"),
            ("model.visual.blocks.0.q", "visual.blocks.0.q"),
            ("vision_tower.model.layers.0.q", "vision_tower.model.layers.0.q"),
            ("transformer.h.0.q", "h.0.q"),
            ("transformer_blocks.0.q", "transformer_blocks.0.q"),
            ("text_encoder/text_model.layers.0.q", "text_encoder/layers.0.q"),
            ("model.lm_head.weight", "lm_head.weight"),
            ("model.weight", "model.weight"),
            ("model", "model"),
        ] {
            assert_eq!(plain(name), below, "{name}");
        }
        for (name, of) in [
            ("layers.0.q", "layers."),
            ("model.visual.blocks.11.attn.0.q", "model.visual.blocks."),
            ("0.q", ""),
            ("lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(stack(name), of, "{name}");
        }
    }
}
