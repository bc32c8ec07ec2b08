//! Cosmos-Predict 1: three blocks a layer as published, one in diffusers
//! (`convert_cosmos_transformer_checkpoint_to_diffusers`).

use super::{Architecture, Detected, Evidence, OfBase, Rule, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "cosmos1", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
transformer_blocks.{i}.attn1.{to_q,to_k,to_v,to_out.0}  blocks.block{i}.blocks.0.block.attn.{to_q,to_k,to_v,to_out}.0
transformer_blocks.{i}.attn2.{to_q,to_k,to_v,to_out.0}  blocks.block{i}.blocks.1.block.attn.{to_q,to_k,to_v,to_out}.0
transformer_blocks.{i}.ff.net.{0.proj,2}                blocks.block{i}.blocks.2.block.{layer1,layer2}
transformer_blocks.{i}.norm1.{linear_1,linear_2}        blocks.block{i}.blocks.0.adaLN_modulation.{1,2}
transformer_blocks.{i}.norm2.{linear_1,linear_2}        blocks.block{i}.blocks.1.adaLN_modulation.{1,2}
transformer_blocks.{i}.norm3.{linear_1,linear_2}        blocks.block{i}.blocks.2.adaLN_modulation.{1,2}
norm_out.{linear_1,linear_2}                            final_layer.adaLN_modulation.{1,2}
proj_out                                                final_layer.linear
time_embed.t_embedder.{linear_1,linear_2}               t_embedder.1.{linear_1,linear_2}
patch_embed.proj                                        x_embedder.proj.1
";

/// What the first Cosmos calls the modules of the class that diffusers has for both.
pub(super) fn rules() -> Vec<Rule> {
    rules_of(TABLE)
}

/// In diffusers the width of the 7B model tells it; the 14B model has the names and widths of the second
/// Cosmos, and is taken for it.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = rules_of(TABLE)
        .into_iter()
        .any(|rule| rule.published.starts_with("blocks.block{i}.") && seen.any(&[&rule.published]));
    let sized = ["norm1", "norm2", "norm3"].iter().any(|norm| {
        let name = format!("transformer_blocks.{{i}}.{norm}.linear_1");
        seen.width(&name, &[4096])
    }) || seen.sized("transformer_blocks.{i}.attn2.to_k", (4096, 1024));
    (named || sized).then(|| Detected::published(rules()))
}
