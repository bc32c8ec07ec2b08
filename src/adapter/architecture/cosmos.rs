//! Cosmos-Predict 2 and 2.5, and Anima, whose body is the smaller of them (diffusers
//! `convert_cosmos_transformer_checkpoint_to_diffusers`).

use super::{Architecture, Detected, Evidence, OfBase, cosmos1, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "cosmos", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
transformer_blocks.{i}.{norm1,norm2,norm3}.{linear_1,linear_2}  blocks.{i}.{adaln_modulation_self_attn,adaln_modulation_cross_attn,adaln_modulation_mlp}.{1,2}
transformer_blocks.{i}.{attn1,attn2}.{to_q,to_k,to_v,to_out.0}  blocks.{i}.{self_attn,cross_attn}.{q_proj,k_proj,v_proj,output_proj}
transformer_blocks.{i}.{attn1,attn2}.{norm_q,norm_k}            blocks.{i}.{self_attn,cross_attn}.{q_norm,k_norm}
transformer_blocks.{i}.ff.net.{0.proj,2}                        blocks.{i}.mlp.{layer1,layer2}
norm_out.{linear_1,linear_2}                                    final_layer.adaln_modulation.{1,2}
proj_out                                                        final_layer.linear
time_embed.t_embedder.{linear_1,linear_2}                       t_embedder.1.{linear_1,linear_2}
patch_embed.proj                                                x_embedder.proj.1
";

/// In diffusers its names are those of the first Cosmos, whose 7B model is 4096 wide; of LTX-Video's, with
/// which it shares a width, the cross attention reads other states.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = rules_of(TABLE)
        .into_iter()
        .any(|rule| rule.published.starts_with("blocks.") && seen.any(&[&rule.published]));
    let modulated = ["norm1", "norm2", "norm3"].iter().any(|norm| {
        seen.any(&[&format!("transformer_blocks.{{i}}.{norm}.linear_1")])
            || seen.any(&[&format!("transformer_blocks.{{i}}.{norm}.linear_2")])
    });
    let sized = seen.width("transformer_blocks.{i}.attn2.to_k", &[1024])
        || seen.width("transformer_blocks.{i}.attn2.to_v", &[1024]);
    // A model in diffusers' names can be the first Cosmos: what its adapters were published with is understood.
    let first = || if named { Vec::new() } else { cosmos1::rules() };
    let rules = || rules_of(TABLE).into_iter().chain(first()).collect();
    (named || modulated || sized).then(|| Detected::published(rules()))
}
