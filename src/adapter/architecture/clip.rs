//! CLIP's text towers: transformers' names against open_clip's (Stable Diffusion 2, and the second of
//! XL), whose attention has its three projections in one parameter and whose projection is stored
//! transposed (open_clip `transformer.py`; diffusers `convert_open_clip_checkpoint`). And torch's own
//! attention of that kind, which PEFT adapts as a whole (`tuners/lora/layer.py`).

use super::{Architecture, Cut, Names, Rule, Seen, Side, Table, Told, has, rules_of};

pub(super) static ARCHITECTURE: Architecture = Architecture { name: "clip", rules, told };

const TABLE: &Table = &[
    (
        "text_model.encoder.layers.{i}.self_attn.q_proj",
        "transformer.resblocks.{i}.attn.in_proj_weight",
        Cut::nth(0, 3),
    ),
    (
        "text_model.encoder.layers.{i}.self_attn.k_proj",
        "transformer.resblocks.{i}.attn.in_proj_weight",
        Cut::nth(1, 3),
    ),
    (
        "text_model.encoder.layers.{i}.self_attn.v_proj",
        "transformer.resblocks.{i}.attn.in_proj_weight",
        Cut::nth(2, 3),
    ),
    (
        "text_model.encoder.layers.{i}.self_attn.out_proj",
        "transformer.resblocks.{i}.attn.out_proj",
        Cut::Whole,
    ),
    ("text_model.encoder.layers.{i}.layer_norm1", "transformer.resblocks.{i}.ln_1", Cut::Whole),
    ("text_model.encoder.layers.{i}.layer_norm2", "transformer.resblocks.{i}.ln_2", Cut::Whole),
    ("text_model.encoder.layers.{i}.mlp.fc1", "transformer.resblocks.{i}.mlp.c_fc", Cut::Whole),
    ("text_model.encoder.layers.{i}.mlp.fc2", "transformer.resblocks.{i}.mlp.c_proj", Cut::Whole),
    ("text_model.embeddings.token_embedding", "token_embedding", Cut::Whole),
    ("text_model.embeddings.position_embedding", "positional_embedding", Cut::Whole),
    ("text_model.final_layer_norm", "ln_final", Cut::Whole),
];

/// Whether a parameter is stored inputs × outputs: the projection where it is no layer of its own.
pub(in crate::adapter) fn is_turned(name: &str) -> bool {
    name == "text_projection" || name.ends_with(".text_projection")
}

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    let open_clip = has(names, "transformer.resblocks.0.");
    if open_clip || has(names, "text_model.encoder.layers.0.") {
        rules.extend(rules_of(TABLE));
    }
    if names.iter().any(|name| name.ends_with("in_proj_weight")) {
        rules.extend(rules_of(&[("{*}", "{*}.in_proj_weight", Cut::Whole)]));
    }
    rules
}

/// kohya's names and diffusers' are transformers' both.
fn told(seen: &Seen<'_>) -> Option<Told> {
    let published = TABLE.iter().any(|(_, published, _)| seen.any(&[published]));
    let split = TABLE.iter().any(|(split, ..)| seen.any(&[split]));
    if !published && !split {
        return None;
    }
    let mut rules = rules_of(TABLE);
    if !published {
        rules.extend(rules_of(&[("text_projection", "text_projection", Cut::Whole)]));
    }
    Some(Told { component: "text_encoder", rules, kohya: Side::Split, t5: None })
}
