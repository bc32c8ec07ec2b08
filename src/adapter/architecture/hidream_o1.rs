//! HiDream-O1: Qwen3-VL's layers, which read and write patches of pixels; it has one layout (modules of its authors as
//! musubi-tuner and ComfyUI hold them, transformers' `Qwen3VLModel` for the rest).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "hidream_o1", tables: &[TABLE, PIXELS], rules: OfBase::Detected, detect };

const TABLE: &str = "
model.language_model.layers.{i}.self_attn.{q_proj,k_proj,v_proj,o_proj}
model.language_model.layers.{i}.mlp.{gate_proj,up_proj,down_proj}
model.language_model.embed_tokens
model.visual.blocks.{i}.attn.{qkv,proj}
model.visual.blocks.{i}.mlp.{linear_fc1,linear_fc2}
model.visual.merger.{linear_fc1,linear_fc2}
model.visual.deepstack_merger_list.{i}.{linear_fc1,linear_fc2}
model.visual.{patch_embed.proj,pos_embed}
lm_head
";

/// Its own modules, which stand beside the layers or above them.
const PIXELS: &str = "
model.x_embedder.{proj1,proj2}
model.t_embedder1.mlp.{0,2}
model.final_layer2.linear
x_embedder.{proj1,proj2}
t_embedder1.mlp.{0,2}
final_layer2.linear
";

/// Qwen3-VL's names alone are that model's; flattened below the prefix of a denoiser they are this one's.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let rules = || rules_of(TABLE).into_iter().chain(rules_of(PIXELS));
    let own = rules_of(PIXELS).iter().any(|rule| seen.any(&[&rule.split]));
    let flat = seen.0.iter().all(|module| module.flat);
    let layers = flat && seen.any(&["model.language_model.layers.{i}.self_attn.q_proj"]);
    (own || layers).then(|| Detected::published(rules().collect()))
}
