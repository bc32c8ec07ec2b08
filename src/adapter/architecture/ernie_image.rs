//! Ernie-Image: it has one layout, diffusers' own (diffusers `transformer_ernie_image.py`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "ernie_image", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
x_embedder.proj
text_proj
time_embedding.{linear_1,linear_2}
adaLN_modulation.1
layers.{i}.self_attention.{to_q,to_k,to_v,to_out.0}
layers.{i}.mlp.{gate_proj,up_proj,linear_fc2}
final_norm.linear
final_linear
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.any(&[
        "layers.{i}.self_attention.to_q",
        "layers.{i}.self_attention.to_k",
        "layers.{i}.self_attention.to_v",
        "layers.{i}.self_attention.to_out.0",
        "layers.{i}.mlp.linear_fc2",
    ]);
    named.then(|| Detected::published(rules_of(TABLE)))
}
