//! OmniGen: Phi-3's layers, its attention divided in diffusers, which is the one layout that adapters have
//! (diffusers `transformer_omnigen.py`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "omnigen1", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
patch_embedding.{input_image_proj,output_image_proj}
{time_token,t_embedder}.{linear_1,linear_2}
embed_tokens
layers.{i}.self_attn.{to_q,to_k,to_v,to_out.0}
layers.{i}.mlp.{gate_up_proj,down_proj}
norm_out.linear
proj_out
";

/// Its layers' names are Phi-3's and ACE-Step's; both together are its own.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let layers =
        seen.any(&["layers.{i}.mlp.gate_up_proj"]) && seen.any(&["layers.{i}.self_attn.to_q"]);
    (layers || seen.starts(&["time_token"])).then(|| Detected::published(rules_of(TABLE)))
}
