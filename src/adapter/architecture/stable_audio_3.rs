//! Stable Audio 3: attention is fused in diffusers too (diffusers `stable_audio_3_transformer.py`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "stable_audio_3", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
to_timestep_embed.{0,2}
to_cond_embed.{0,2}
to_global_embed.{0,2}
global_cond_embedder.{0,2}
preprocess_conv
postprocess_conv
proj_in
proj_out
transformer_blocks.{i}.{self_attn.to_qkv,self_attn.to_out,cross_attn.to_q}
transformer_blocks.{i}.{cross_attn.to_kv,cross_attn.to_out,ff.proj_in,ff.proj_out}
transformer_blocks.{i}.to_local_embed.{0,2}
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.any(&[
        "transformer_blocks.{i}.self_attn.to_qkv",
        "transformer_blocks.{i}.cross_attn.to_kv",
        "transformer_blocks.{i}.to_local_embed.0",
    ]) || seen.starts(&["global_cond_embedder"]);
    named.then(|| Detected::published(rules_of(TABLE)))
}
