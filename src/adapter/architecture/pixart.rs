//! PixArt-α and Σ: fused attention, and keys and values fused in the cross attention (diffusers
//! `scripts/convert_pixart_sigma_to_diffusers.py`).

use super::{Architecture, Detected, Evidence, Names, OfBase, Rule, has, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "pixart", tables: &[TABLE], rules: OfBase::Names(rules), detect };

const TABLE: &str = "
transformer_blocks.{i}.attn1.{to_q,to_k,to_v}               blocks.{i}.attn.qkv  1:1:1
transformer_blocks.{i}.attn1.to_out.0                       blocks.{i}.attn.proj
transformer_blocks.{i}.attn2.to_q                           blocks.{i}.cross_attn.q_linear
transformer_blocks.{i}.attn2.{to_k,to_v}                    blocks.{i}.cross_attn.kv_linear  1:1
transformer_blocks.{i}.attn2.to_out.0                       blocks.{i}.cross_attn.proj
transformer_blocks.{i}.ff.net.{0.proj,2}                    blocks.{i}.mlp.{fc1,fc2}
pos_embed.proj                                              x_embedder.proj
adaln_single.emb.timestep_embedder.{linear_1,linear_2}      t_embedder.mlp.{0,2}
adaln_single.emb.resolution_embedder.{linear_1,linear_2}    csize_embedder.mlp.{0,2}
adaln_single.emb.aspect_ratio_embedder.{linear_1,linear_2}  ar_embedder.mlp.{0,2}
adaln_single.linear                                         t_block.1
caption_projection.{linear_1,linear_2}                      y_embedder.y_proj.{fc1,fc2}
proj_out                                                    final_layer.linear
";

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let published = has(names, "blocks.0.cross_attn.kv_linear");
    let split = has(names, "adaln_single.linear") && has(names, "caption_projection.linear_1");
    if published || split { rules_of(TABLE) } else { Vec::new() }
}

/// LTX-Video has the same names in diffusers; the width and the patches' embedding tell them apart.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let published = rules_of(TABLE).iter().any(|Rule { published, .. }| {
        published.starts_with("blocks.{i}.cross_attn.") && seen.any(&[published])
    });
    let attention = ["transformer_blocks.{i}.attn1.to_q", "transformer_blocks.{i}.attn2.to_q"];
    let split = attention.iter().any(|name| seen.width(name, &[1152]))
        || (seen.any(&attention) && seen.any(&["pos_embed.proj"]));
    let rules = || rules_of(TABLE);
    (published || split).then(|| Detected { t5: Some(1), ..Detected::published(rules()) })
}
