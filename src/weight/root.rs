//! Roots of names: the wrappers around a model that come and go between releases of transformers, trainers
//! and writers, while the names below them stay.

/// Parts of names that only wrap what is below them.
const WRAPPERS: [&str; 8] = [
    "base_model",
    "model",
    "language_model",
    "module",
    "transformer",
    "backbone",
    "bert",
    "roberta",
];

/// A name's leading wrappers, with the dot behind them, and what is below: `model.language_model.` and
/// `layers.0.mlp.up_proj.weight`.
pub(crate) fn split(name: &str) -> (&str, &str) {
    let mut below = name;
    while let Some((first, rest)) = below.split_once('.') {
        if !WRAPPERS.contains(&first) {
            break;
        }
        below = rest;
    }
    let root = name.strip_suffix(below).unwrap_or_default();
    (root, below)
}

/// The stack of layers that a name below its root belongs to, all of whose tensors have one root: `layers` of
/// `layers.0.mlp.up_proj`; the whole name where there is no layer's number.
pub(crate) fn stack(below: &str) -> &str {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut end = 0;
    for part in below.split('.') {
        if number(part) {
            return below.get(..end).unwrap_or(below).trim_end_matches('.');
        }
        end += part.len() + 1;
    }
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_told_from_parts_of_models() {
        for (name, root, below) in [
            ("model.layers.0.q", "model.", "layers.0.q"),
            ("model.language_model.layers.0.q", "model.language_model.", "layers.0.q"),
            ("language_model.model.layers.0.q", "language_model.model.", "layers.0.q"),
            ("model.visual.blocks.0.q", "model.", "visual.blocks.0.q"),
            ("vision_tower.model.layers.0.q", "", "vision_tower.model.layers.0.q"),
            ("transformer.h.0.q", "transformer.", "h.0.q"),
            ("transformer_blocks.0.q", "", "transformer_blocks.0.q"),
            ("lm_head.weight", "", "lm_head.weight"),
            ("model", "", "model"),
        ] {
            assert_eq!(split(name), (root, below), "{name}");
        }
        for (below, of) in [
            ("layers.0.q", "layers"),
            ("visual.blocks.11.attn.0.q", "visual.blocks"),
            ("0.q", ""),
            ("lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(stack(below), of, "{below}");
        }
    }
}
