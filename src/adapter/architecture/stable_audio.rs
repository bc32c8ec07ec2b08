//! Stable Audio Open 1.0: fused attention as published (names and shapes of both classes; both put a gate
//! behind what it gates).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture = Architecture {
    name: "stable_audio",
    tables: &[TABLE, WITHOUT_ROOT],
    rules: OfBase::Detected,
    detect,
};

const TABLE: &str = "
transformer_blocks.{i}.attn1.{to_q,to_k,to_v}         transformer.layers.{i}.self_attn.to_qkv  1:1:1
transformer_blocks.{i}.attn1.to_out.0                 transformer.layers.{i}.self_attn.to_out
transformer_blocks.{i}.attn2.to_q                     transformer.layers.{i}.cross_attn.to_q
transformer_blocks.{i}.attn2.{to_k,to_v}              transformer.layers.{i}.cross_attn.to_kv  1:1  any
transformer_blocks.{i}.attn2.to_out.0                 transformer.layers.{i}.cross_attn.to_out
transformer_blocks.{i}.ff.net.{0.proj,2}              transformer.layers.{i}.ff.ff.{0.proj,2}
proj_in                                               transformer.project_in
proj_out                                              transformer.project_out
preprocess_conv
postprocess_conv
{timestep_proj,global_proj,cross_attention_proj}.{i}  {to_timestep_embed,to_global_embed,to_cond_embed}.{i}
";

/// The same without that part.
const WITHOUT_ROOT: &str = "
transformer_blocks.{i}.attn1.{to_q,to_k,to_v}         layers.{i}.self_attn.to_qkv  1:1:1
transformer_blocks.{i}.attn1.to_out.0                 layers.{i}.self_attn.to_out
transformer_blocks.{i}.attn2.to_q                     layers.{i}.cross_attn.to_q
transformer_blocks.{i}.attn2.{to_k,to_v}              layers.{i}.cross_attn.to_kv  1:1  any
transformer_blocks.{i}.attn2.to_out.0                 layers.{i}.cross_attn.to_out
transformer_blocks.{i}.ff.net.{0.proj,2}              layers.{i}.ff.ff.{0.proj,2}
{proj_in,proj_out}                                    {project_in,project_out}
";

/// The first part of the published path is diffusers' word for the component, and may be taken for it.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let published = rules_of(TABLE).into_iter().chain(rules_of(WITHOUT_ROOT)).any(|rule| {
        let own = rule.published.contains("layers.{i}.");
        own && seen.any(&[&rule.published])
    });
    let named = seen.starts(&["timestep_proj", "global_proj", "cross_attention_proj"])
        || seen.starts(&["to_timestep_embed", "to_global_embed", "to_cond_embed"])
        || seen.starts(&["transformer.project_in", "transformer.project_out"]);
    let attention = ["transformer_blocks.{i}.attn1.to_q", "transformer_blocks.{i}.attn2.to_q"];
    let sized = attention.iter().any(|name| seen.width(name, &[1536]));
    let rules = || rules_of(TABLE).into_iter().chain(rules_of(WITHOUT_ROOT)).collect();
    (published || named || sized).then(|| Detected::published(rules()))
}
