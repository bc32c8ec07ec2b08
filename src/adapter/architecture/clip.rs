//! CLIP's text towers: transformers' names against open_clip's (Stable Diffusion 2, and the second of
//! XL), whose attention has its three projections in one parameter and whose projection is stored
//! transposed (open_clip `transformer.py`; diffusers `convert_open_clip_checkpoint`). And torch's own
//! attention of that kind, which PEFT adapts as a whole (`tuners/lora/layer.py`).

use super::{Architecture, Detected, Evidence, Names, OfBase, Rule, Side, has, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "clip", tables: &[TABLE], rules: OfBase::Beside(rules), detect };

const TABLE: &str = "
text_model.encoder.layers.{i}.self_attn.{q_proj,k_proj,v_proj}  transformer.resblocks.{i}.attn.in_proj_weight  1:1:1
text_model.encoder.layers.{i}.{self_attn.out_proj,layer_norm1,layer_norm2,mlp.fc1}  transformer.resblocks.{i}.{attn.out_proj,ln_1,ln_2,mlp.c_fc}
text_model.encoder.layers.{i}.mlp.fc2                         transformer.resblocks.{i}.mlp.c_proj
text_model.embeddings.token_embedding                         token_embedding
text_model.embeddings.position_embedding                      positional_embedding
text_model.final_layer_norm                                   ln_final
";

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
        rules.extend(rules_of("{*} {*}.in_proj_weight"));
    }
    rules
}

/// kohya's names and diffusers' are transformers' both.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let published = rules_of(TABLE).iter().any(|rule| seen.any(&[&rule.published]));
    let split = rules_of(TABLE).iter().any(|rule| seen.any(&[&rule.split]));
    if !published && !split {
        return None;
    }
    let mut rules = rules_of(TABLE);
    if !published {
        rules.extend(rules_of("text_projection"));
    }
    Some(Detected { component: "text_encoder", kohya: Side::Split, ..Detected::published(rules) })
}
