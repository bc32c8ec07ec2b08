//! Names of modules and tensors below the wrappers that releases, trainers and writers put around the parts of a
//! model: the wrappers come and go, the names below them stay.
//!
//! The language model of a vision-language model is `model.layers.0…`, `language_model.model.layers.0…`
//! or `model.language_model.layers.0…`, by the release that saved it; its towers stand beside or below
//! `model` (transformers `conversion_mapping.py`: `llava`, `llava_next`, `video_llava`, `mllama`, `fuyu`,
//! `emu3`, `qwen2_audio`, `voxtral`, `granite_speech`, `vibevoice_asr`, `Qwen2VL…`, `Qwen2_5Omni…`,
//! `paddleocr_vl`, `ernie4_5_vl_moe`, `qianfan_ocr`, `kimi_k25`, `qwen3_5_text`, `colqwen2`, `shieldgemma2`,
//! `nemotron_h`, `CLIPTextModel`, `CLIPVisionModel`). Each part is taken out of its wrappers on its own, so
//! that one adapter may have parts that moved and parts that did not.

use serde_json::{Map, Value};

/// Parts of a path that only wrap what stands below them, at the start of a name.
const WRAPPERS: [&str; 9] = [
    "model",
    "language_model",
    "text_model",
    "thinker",
    "vlm",
    "llm",
    "backbone",
    "base_model",
    "module",
];

/// Further ones of names with dots. Where dots became underscores, `transformer_blocks` would begin with one.
const DOTTED_WRAPPERS: [&str; 3] = ["transformer", "bert", "roberta"];

/// Names that releases have for one part of a model, and the one that stands for them here.
const PARTS: [(&str, &str); 5] = [
    ("visual", "vision_tower"),
    ("vision_model", "vision_tower"),
    ("vit", "vision_tower"),
    ("mlp_AR", "projector"),
    ("embed_out", "lm_head"),
];

/// What stands once more inside a tower, in some releases (`vision_tower.vision_model.encoder…`).
const INSIDE: [&str; 2] = ["vision_model", "text_model"];

/// A name without the wrappers around it. Names of one module in two releases have one plain form; a
/// component's directory (`text_encoder/`) stays before it.
pub(crate) fn plain(name: &str) -> String {
    let (directory, path) = match name.rsplit_once('/') {
        Some((directory, path)) => (Some(directory), path),
        None => (None, name),
    };
    let below = strip(path, '.', &DOTTED_WRAPPERS);
    match directory {
        Some(directory) => format!("{directory}/{below}"),
        None => below,
    }
}

/// As [`plain`], of a name whose dots became underscores, below the prefix of its part.
pub(crate) fn plain_flat(name: &str) -> String {
    strip(name, '_', &[])
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

/// Whether a model's config is of one that wraps a language model, beside towers for images or sound.
pub(crate) fn wraps(config: &Map<String, Value>) -> bool {
    let parts = ["text_config", "vision_config", "audio_config"];
    let listed = config.get("architectures").and_then(Value::as_array);
    let class = listed.and_then(|classes| classes.first()).and_then(Value::as_str);
    parts.iter().any(|part| config.get(*part).is_some_and(Value::is_object))
        || class.is_some_and(|class| class.ends_with("ForConditionalGeneration"))
}

/// Where a program has the language model of a wrapper of vision or audio models.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Root {
    /// Before the names of its layers, embeddings and last norm.
    model: &'static str,
    /// The name of its head.
    head: &'static str,
}

impl Root {
    /// A language model by itself.
    pub(crate) const TEXT: Self = Self { model: "model.", head: "lm_head" };
    /// transformers' modules, since 4.52.
    pub(crate) const NESTED: Self = Self { model: "model.language_model.", head: "lm_head" };
    /// transformers' modules before, and mlx-lm's.
    pub(crate) const OUTER: Self =
        Self { model: "language_model.model.", head: "language_model.lm_head" };

    /// Whether a module is of a language model by itself, without a wrapper around it.
    pub(crate) fn is_bare(module: &str) -> bool {
        Self::TEXT.of(module).as_deref() == Some(module)
    }

    /// The name that a module of the language model has there; none of a tower's.
    pub(crate) fn of(self, module: &str) -> Option<String> {
        let plain = plain(module);
        let inside = |start: &str| plain.strip_prefix(start).is_some_and(|r| r.starts_with('.'));
        if plain == "lm_head" {
            return Some(self.head.to_owned());
        }
        let in_model = inside("layers") || ["embed_tokens", "norm"].contains(&plain.as_str());
        in_model.then(|| format!("{}{plain}", self.model))
    }
}

fn strip(path: &str, separator: char, further: &[&str]) -> String {
    let behind = |path: &str, part: &str| -> Option<String> {
        let rest = path.strip_prefix(part)?.strip_prefix(separator)?;
        (!rest.is_empty()).then(|| rest.to_owned())
    };
    let mut path = path.to_owned();
    while let Some(rest) = WRAPPERS.iter().chain(further).find_map(|wrapper| {
        // The last part of a name is what is wrapped, never a wrapper.
        behind(&path, wrapper).filter(|rest| rest.contains(separator))
    }) {
        path = rest;
    }
    let tower = PARTS.iter().find_map(|(known, part)| Some((*part, behind(&path, known)?)));
    let tower = tower.or_else(|| Some(("vision_tower", behind(&path, "vision_tower")?)));
    let Some((part, mut below)) = tower else { return path };
    while let Some(rest) = INSIDE.iter().find_map(|inside| behind(&below, inside)) {
        below = rest;
    }
    format!("{part}{separator}{below}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_module_has_one_plain_form() {
        let language = "layers.0.self_attn.q_proj.weight";
        let vision = "vision_tower.blocks.0.attn.qkv.weight";
        let clip = "vision_tower.encoder.layers.0.mlp.fc1.weight";
        for (name, expected) in [
            ("layers.0.self_attn.q_proj.weight", language),
            ("model.layers.0.self_attn.q_proj.weight", language),
            ("model.language_model.layers.0.self_attn.q_proj.weight", language),
            ("language_model.model.layers.0.self_attn.q_proj.weight", language),
            ("thinker.model.layers.0.self_attn.q_proj.weight", language),
            ("model.text_model.layers.0.self_attn.q_proj.weight", language),
            ("vlm.model.language_model.layers.0.self_attn.q_proj.weight", language),
            ("backbone.layers.0.self_attn.q_proj.weight", language),
            ("language_model.lm_head.weight", "lm_head.weight"),
            ("thinker.lm_head.weight", "lm_head.weight"),
            ("embed_out.weight", "lm_head.weight"),
            ("model.weight", "model.weight"),
            ("transformer.h.0.q.weight", "h.0.q.weight"),
            ("transformer_blocks.0.q.weight", "transformer_blocks.0.q.weight"),
            ("vision_tower.model.layers.0.q", "vision_tower.model.layers.0.q"),
            ("model", "model"),
            ("visual.blocks.0.attn.qkv.weight", vision),
            ("model.visual.blocks.0.attn.qkv.weight", vision),
            ("thinker.visual.blocks.0.attn.qkv.weight", vision),
            ("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", clip),
            ("model.vision_tower.encoder.layers.0.mlp.fc1.weight", clip),
            ("vision_model.encoder.layers.0.mlp.fc1.weight", clip),
            ("model.audio_tower.layers.0.fc1.weight", "audio_tower.layers.0.fc1.weight"),
            ("talker.model.layers.0.q.weight", "talker.model.layers.0.q.weight"),
            ("text_encoder/text_model.encoder.x.weight", "text_encoder/encoder.x.weight"),
        ] {
            assert_eq!(plain(name), expected, "{name}");
        }
        assert_eq!(plain_flat("text_model_encoder_layers_0_mlp_fc1"), "encoder_layers_0_mlp_fc1");
        assert_eq!(plain_flat("transformer_blocks_0_attn_to_q"), "transformer_blocks_0_attn_to_q");
    }

    #[test]
    fn a_stack_of_layers_ends_before_its_number() {
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
