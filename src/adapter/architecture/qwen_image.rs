//! Qwen-Image: it has one layout, diffusers' own (diffusers `transformer_qwenimage.py`). What there is to
//! know of it is where the dots of flattened names were.

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "qwen_image", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
transformer_blocks.{i}.attn.{to_q,to_k,to_v,add_q_proj,add_k_proj,add_v_proj,to_out.0,to_add_out}
transformer_blocks.{i}.{img_mod.1,txt_mod.1}
transformer_blocks.{i}.{img_mlp,txt_mlp}.net.{0.proj,2}
{img_in,txt_in,txt_norm,norm_out.linear,proj_out}
time_text_embed.timestep_embedder.{linear_1,linear_2}
time_text_embed.addition_t_embedding
";

/// Its feed-forward layers have names of their own; where only its attention is adapted, its 60 blocks
/// tell it.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    const ATTENTION: [&str; 4] = [
        "transformer_blocks.{i}.attn.to_q",
        "transformer_blocks.{i}.attn.to_out.0",
        "transformer_blocks.{i}.attn.add_q_proj",
        "transformer_blocks.{i}.attn.to_add_out",
    ];
    let named = seen.any(&[
        "transformer_blocks.{i}.img_mod.1",
        "transformer_blocks.{i}.txt_mod.1",
        "transformer_blocks.{i}.img_mlp.net.0.proj",
        "transformer_blocks.{i}.img_mlp.net.2",
        "transformer_blocks.{i}.txt_mlp.net.0.proj",
        "transformer_blocks.{i}.txt_mlp.net.2",
    ]);
    let counted = seen.highest("transformer_blocks").is_some_and(|at| at >= 38)
        && seen.any(&ATTENTION)
        && !seen.any(&["transformer_blocks.{i}.norm1_context.linear"]);
    (named || counted).then(|| Detected::published(rules_of(TABLE)))
}
