//! Sana 1.0, 1.5 and Sprint: PixArt's attention, and a feed-forward layer of convolutions (diffusers
//! `convert_sana_transformer_to_diffusers`). Adapters have diffusers' names, flattened too.

use super::{Architecture, Detected, Evidence, OfBase, Side, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "sana", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
patch_embed.proj                                          x_embedder.proj
time_embed.emb.timestep_embedder.{linear_1,linear_2}      t_embedder.mlp.{0,2}
time_embed.linear                                         t_block.1
caption_projection.{linear_1,linear_2}                    y_embedder.y_proj.{fc1,fc2}
transformer_blocks.{i}.attn1.{to_q,to_k,to_v}             blocks.{i}.attn.qkv  1:1:1
transformer_blocks.{i}.attn1.to_out.0                     blocks.{i}.attn.proj
transformer_blocks.{i}.attn2.to_q                         blocks.{i}.cross_attn.q_linear
transformer_blocks.{i}.attn2.{to_k,to_v}                  blocks.{i}.cross_attn.kv_linear  1:1
transformer_blocks.{i}.attn2.to_out.0                     blocks.{i}.cross_attn.proj
transformer_blocks.{i}.ff.{conv_inverted,conv_depth,conv_point}  blocks.{i}.mlp.{inverted_conv,depth_conv,point_conv}.conv
proj_out                                                  final_layer.linear
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let layers = ["inverted", "depth", "point"];
    let named = layers.iter().any(|layer| {
        let split = format!("transformer_blocks.{{i}}.ff.conv_{layer}");
        seen.any(&[&split, &format!("blocks.{{i}}.mlp.{layer}_conv.conv")])
    });
    let attention = ["transformer_blocks.{i}.attn1.to_q", "transformer_blocks.{i}.attn2.to_q"];
    let published = ["blocks.{i}.attn.qkv", "blocks.{i}.cross_attn.q_linear"];
    let sized = attention.iter().chain(&published).any(|name| seen.width(name, &[2240]));
    let rules = || rules_of(TABLE);
    (named || sized).then(|| Detected { kohya: Side::Split, ..Detected::published(rules()) })
}
