//! CogVideoX and CogView 4: adapters have diffusers' names (diffusers `cogvideox_transformer_3d.py`,
//! `transformer_cogview4.py`).

use super::{Architecture, Detected, Evidence, OfBase, Side, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "cogvideox", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
patch_embed.{proj,text_proj}
time_embedding.{linear_1,linear_2}
transformer_blocks.{i}.{norm1.linear,attn1.to_q,attn1.to_k,attn1.to_v}
transformer_blocks.{i}.attn1.to_out.0
transformer_blocks.{i}.norm2.linear
transformer_blocks.{i}.ff.net.{0.proj,2}
norm_out.linear
proj_out
time_condition_embed.timestep_embedder.{linear_1,linear_2}
time_condition_embed.condition_embedder.{linear_1,linear_2}
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&["patch_embed.text_proj", "time_condition_embed"]);
    let modulated = seen.width("transformer_blocks.{i}.norm1.linear", &[512])
        || seen.width("transformer_blocks.{i}.norm2.linear", &[512]);
    // Others of these widths have a second attention.
    let alone =
        !seen.any(&["transformer_blocks.{i}.attn2.to_q", "transformer_blocks.{i}.attn2.to_k"]);
    let sized = alone && seen.width("transformer_blocks.{i}.attn1.to_q", &[1920, 2560, 3072]);
    let rules = || rules_of(TABLE);
    (named || modulated || sized)
        .then(|| Detected { kohya: Side::Split, ..Detected::published(rules()) })
}
