//! Ideogram 4: a relative of Z-Image with names of its own (diffusers
//! `_convert_non_diffusers_ideogram4_lora_to_diffusers`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "ideogram4", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
layers.{i}.attention.{to_q,to_k,to_v}  layers.{i}.attention.qkv  1:1:1
layers.{i}.attention.to_out.0          layers.{i}.attention.o
layers.{i}.{feed_forward.w1,feed_forward.w2,feed_forward.w3,adaln_modulation}
input_proj
llm_cond_proj
t_embedding.{mlp_in,mlp_out}
adaln_proj
embed_image_indicator
final_layer.{linear,adaln_modulation}
";

/// What it shares with Z-Image is wider here.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&["llm_cond_proj", "adaln_proj", "embed_image_indicator"])
        || seen.any(&["layers.{i}.attention.o", "layers.{i}.adaln_modulation"]);
    let shared = [
        "layers.{i}.attention.qkv",
        "layers.{i}.attention.to_q",
        "layers.{i}.attention.to_out.0",
        "layers.{i}.feed_forward.w1",
    ];
    let sized = shared.iter().any(|name| seen.width(name, &[4608]));
    (named || sized).then(|| Detected::published(rules_of(TABLE)))
}
