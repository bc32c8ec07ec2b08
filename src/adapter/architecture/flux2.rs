//! FLUX.2 dev and klein: FLUX.1's double blocks with gated layers, single blocks that are fused in both
//! layouts, and modulations of the whole model. The last one has shift before scale as published (diffusers
//! `convert_flux2_transformer_checkpoint_to_diffusers`; its converter of adapters leaves that out).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "flux2", tables: &[TABLE, FUSED], rules: OfBase::Detected, detect };

const TABLE: &str = "
transformer_blocks.{i}.attn.{to_q,to_k,to_v}                  double_blocks.{i}.img_attn.qkv  1:1:1
transformer_blocks.{i}.attn.{add_q_proj,add_k_proj,add_v_proj}  double_blocks.{i}.txt_attn.qkv  1:1:1
transformer_blocks.{i}.attn.{to_out.0,to_add_out}             double_blocks.{i}.{img_attn,txt_attn}.proj
transformer_blocks.{i}.{ff.linear_in,ff.linear_out,ff_context.linear_in}  double_blocks.{i}.{img_mlp.0,img_mlp.2,txt_mlp.0}
transformer_blocks.{i}.ff_context.linear_out                  double_blocks.{i}.txt_mlp.2
single_transformer_blocks.{i}.attn.{to_qkv_mlp_proj,to_out}   single_blocks.{i}.{linear1,linear2}
x_embedder                                                    img_in
context_embedder                                              txt_in
proj_out                                                      final_layer.linear
norm_out.linear                                               final_layer.adaLN_modulation.1  swapped
time_guidance_embed.timestep_embedder.{linear_1,linear_2}     time_in.{in_layer,out_layer}
time_guidance_embed.guidance_embedder.{linear_1,linear_2}     guidance_in.{in_layer,out_layer}
{double_stream_modulation_img,double_stream_modulation_txt}.linear  {double_stream_modulation_img,double_stream_modulation_txt}.lin
single_stream_modulation.linear                               single_stream_modulation.lin
transformer_blocks.{i}.attn.{norm_q,norm_k}  double_blocks.{i}.img_attn.norm.{query_norm,key_norm}.scale
transformer_blocks.{i}.attn.{norm_added_q,norm_added_k}  double_blocks.{i}.txt_attn.norm.{query_norm,key_norm}.scale
single_transformer_blocks.{i}.attn.{norm_q,norm_k}  single_blocks.{i}.norm.{query_norm,key_norm}.scale
";

/// Names of adapters whose trainer fused projections first, and of those that lost the start of a block's name.
const FUSED: &str = "
transformer_blocks.{i}.attn.{to_q,to_k,to_v,add_q_proj}  sformer_blocks.{i}.attn.{to_q,to_k,to_v,add_q_proj}
transformer_blocks.{i}.attn.{add_k_proj,add_v_proj}  sformer_blocks.{i}.attn.{add_k_proj,add_v_proj}
transformer_blocks.{i}.attn.{to_out.0,to_add_out}  sformer_blocks.{i}.attn.{to_out.0,to_add_out}
transformer_blocks.{i}.{ff,ff_context}.{linear_in,linear_out}  sformer_blocks.{i}.{ff,ff_context}.{linear_in,linear_out}
transformer_blocks.{i}.attn.{to_q,to_k,to_v}  transformer_blocks.{i}.attn.to_qkv  1:1:1
transformer_blocks.{i}.attn.{add_q_proj,add_k_proj,add_v_proj}  transformer_blocks.{i}.attn.to_added_qkv  1:1:1
";

/// Layers have other proportions than FLUX.1's, or other names; the smallest klein's attention alone is
/// FLUX.1's by name and width, and goes to the same places.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&[
        "double_stream_modulation_img",
        "double_stream_modulation_txt",
        "single_stream_modulation",
        "time_guidance_embed.guidance_embedder",
        "sformer_blocks",
    ]) || seen.any(&[
        "single_transformer_blocks.{i}.attn.to_qkv_mlp_proj",
        "single_transformer_blocks.{i}.attn.to_out",
        "transformer_blocks.{i}.ff.linear_in",
        "transformer_blocks.{i}.ff.linear_out",
        "transformer_blocks.{i}.ff_context.linear_in",
        "transformer_blocks.{i}.ff_context.linear_out",
        "transformer_blocks.{i}.attn.to_added_qkv",
    ]);
    let proportioned = [
        ("single_blocks.{i}.linear1", 9),
        ("double_blocks.{i}.img_mlp.0", 6),
        ("double_blocks.{i}.txt_mlp.0", 6),
    ];
    let wide = [
        "double_blocks.{i}.img_attn.qkv",
        "double_blocks.{i}.img_attn.proj",
        "double_blocks.{i}.txt_attn.qkv",
        "double_blocks.{i}.txt_attn.proj",
        "transformer_blocks.{i}.attn.add_q_proj",
        "transformer_blocks.{i}.attn.to_add_out",
    ];
    let sized = proportioned.iter().any(|(name, ratio)| seen.ratio(name, *ratio) == Some(true))
        || wide.iter().any(|name| seen.width(name, &[4096, 6144]));
    let rules = || rules_of(TABLE).into_iter().chain(rules_of(FUSED)).collect();
    (named || sized).then(|| Detected::published(rules()))
}
