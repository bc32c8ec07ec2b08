//! Mochi 1: two streams of unlike widths; gates come after what they gate as published, and the last text
//! block has one part of a modulation (diffusers `scripts/convert_mochi_to_diffusers.py`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "mochi", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
transformer_blocks.47.norm1_context.linear_1  blocks.47.mod_y
transformer_blocks.{i}.attn1.{to_q,to_k,to_v}                 blocks.{i}.attn.qkv_x  1:1:1
transformer_blocks.{i}.attn1.{add_q_proj,add_k_proj,add_v_proj}  blocks.{i}.attn.qkv_y  1:1:1  any
transformer_blocks.{i}.attn1.{to_out.0,to_add_out}            blocks.{i}.attn.{proj_x,proj_y}
transformer_blocks.{i}.{norm1,norm1_context}.linear           blocks.{i}.{mod_x,mod_y}
transformer_blocks.{i}.ff.net.0.proj                          blocks.{i}.mlp_x.w1  swapped
transformer_blocks.{i}.ff.net.2                               blocks.{i}.mlp_x.w2
transformer_blocks.{i}.ff_context.net.0.proj                  blocks.{i}.mlp_y.w1  swapped
transformer_blocks.{i}.ff_context.net.2                       blocks.{i}.mlp_y.w2
patch_embed.proj                                              x_embedder.proj
time_embed.timestep_embedder.{linear_1,linear_2}              t_embedder.mlp.{0,2}
time_embed.pooler.{to_kv,to_q,to_out}                         t5_y_embedder.{to_kv,to_q,to_out}
time_embed.caption_proj                                       t5_yproj
norm_out.linear                                               final_layer.mod  swapped
proj_out                                                      final_layer.linear
transformer_blocks.{i}.attn1.{norm_q,norm_k,norm_added_q,norm_added_k}  blocks.{i}.attn.{q_norm_x,k_norm_x,q_norm_y,k_norm_y}
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&["t5_y_embedder", "t5_yproj", "time_embed.pooler"])
        || seen.any(&[
            "blocks.{i}.attn.qkv_x",
            "blocks.{i}.attn.qkv_y",
            "blocks.{i}.attn.proj_x",
            "blocks.{i}.attn.proj_y",
            "blocks.{i}.mod_x",
            "blocks.{i}.mod_y",
            "blocks.{i}.mlp_x.w1",
            "blocks.{i}.mlp_x.w2",
            "blocks.{i}.mlp_y.w1",
            "blocks.{i}.mlp_y.w2",
            "transformer_blocks.{i}.attn1.add_q_proj",
            "transformer_blocks.{i}.attn1.add_k_proj",
            "transformer_blocks.{i}.attn1.to_add_out",
        ]);
    named.then(|| Detected::published(rules_of(TABLE)))
}
