//! Chroma: FLUX.1 without modulations, and a layer in their place that guidance was distilled into (diffusers
//! `convert_chroma_transformer_checkpoint_to_diffusers`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "chroma", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
transformer_blocks.{i}.attn.{to_q,to_k,to_v}                  double_blocks.{i}.img_attn.qkv  1:1:1
transformer_blocks.{i}.attn.{add_q_proj,add_k_proj,add_v_proj}  double_blocks.{i}.txt_attn.qkv  1:1:1
transformer_blocks.{i}.attn.{to_out.0,to_add_out}             double_blocks.{i}.{img_attn,txt_attn}.proj
transformer_blocks.{i}.ff.net.{0.proj,2}                      double_blocks.{i}.img_mlp.{0,2}
transformer_blocks.{i}.ff_context.net.{0.proj,2}              double_blocks.{i}.txt_mlp.{0,2}
single_transformer_blocks.{i}.{attn.to_q,attn.to_k,attn.to_v,proj_mlp}  single_blocks.{i}.linear1  1:1:1:4
single_transformer_blocks.{i}.proj_out                        single_blocks.{i}.linear2
x_embedder                                                    img_in
context_embedder                                              txt_in
proj_out                                                      final_layer.linear
distilled_guidance_layer.{in_proj,out_proj}
distilled_guidance_layer.layers.{i}.{linear_1,linear_2}       distilled_guidance_layer.layers.{i}.{in_layer,out_layer}
transformer_blocks.{i}.attn.{norm_q,norm_k}  double_blocks.{i}.img_attn.norm.{query_norm,key_norm}.scale
transformer_blocks.{i}.attn.{norm_added_q,norm_added_k}  double_blocks.{i}.txt_attn.norm.{query_norm,key_norm}.scale
single_transformer_blocks.{i}.attn.{norm_q,norm_k}  single_blocks.{i}.norm.{query_norm,key_norm}.scale
";

/// Blocks alone are FLUX.1's, whose table has the same names for them.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&["distilled_guidance_layer"]);
    named.then(|| Detected { t5: Some(1), ..Detected::published(rules_of(TABLE)) })
}
