//! LTX-Video 0.9: blocks have one name, what is around them two (diffusers
//! `convert_ltx_transformer_checkpoint_to_diffusers`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "ltx", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
proj_in                                               patchify_proj
time_embed.emb.timestep_embedder.{linear_1,linear_2}  adaln_single.emb.timestep_embedder.{linear_1,linear_2}
time_embed.linear                                     adaln_single.linear
caption_projection.{linear_1,linear_2}
proj_out
transformer_blocks.{i}.attn1.{to_q,to_k,to_v,to_out.0}
transformer_blocks.{i}.attn2.{to_q,to_k,to_v,to_out.0}
transformer_blocks.{i}.ff.net.{0.proj,2}
transformer_blocks.{i}.{attn1,attn2}.{norm_q,norm_k}  transformer_blocks.{i}.{attn1,attn2}.{q_norm,k_norm}
";

/// Several video models have its blocks' names; the width tells it, or what is around them in one of both layouts.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let attention = ["transformer_blocks.{i}.attn1.to_q", "transformer_blocks.{i}.attn2.to_q"];
    let sized = attention.iter().any(|name| seen.width(name, &[2048]))
        || seen.sized("transformer_blocks.{i}.ff.net.0.proj", (8192, 2048));
    (sized || seen.starts(&["patchify_proj", "time_embed.emb"])).then(|| Detected::published(rules_of(TABLE)))
}
