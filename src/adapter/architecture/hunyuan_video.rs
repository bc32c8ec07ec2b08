//! HunyuanVideo: a relative of FLUX.1 with names of its own (diffusers
//! `convert_hunyuan_video_transformer_to_diffusers`), and other ones again in ComfyUI, which understands both.

use super::{Architecture, Detected, Evidence, Names, OfBase, Rule, has, rules_of};

pub(super) static ARCHITECTURE: Architecture = Architecture {
    name: "hunyuan_video",
    tables: &[TABLE, BLOCKS_OF_COMFYUI, ENDS_OF_COMFYUI],
    rules: OfBase::Names(rules),
    detect,
};

const TABLE: &str = "
transformer_blocks.{i}.attn.{to_q,to_k,to_v}                  double_blocks.{i}.img_attn_qkv  1:1:1
transformer_blocks.{i}.attn.{add_q_proj,add_k_proj,add_v_proj}  double_blocks.{i}.txt_attn_qkv  1:1:1
transformer_blocks.{i}.attn.{to_out.0,to_add_out,norm_q,norm_k}  double_blocks.{i}.{img_attn_proj,txt_attn_proj,img_attn_q_norm,img_attn_k_norm}
transformer_blocks.{i}.{attn.norm_added_q,attn.norm_added_k,norm1.linear}  double_blocks.{i}.{txt_attn_q_norm,txt_attn_k_norm,img_mod.linear}
transformer_blocks.{i}.norm1_context.linear                   double_blocks.{i}.txt_mod.linear
transformer_blocks.{i}.ff.net.{0.proj,2}                      double_blocks.{i}.img_mlp.{fc1,fc2}
transformer_blocks.{i}.ff_context.net.{0.proj,2}              double_blocks.{i}.txt_mlp.{fc1,fc2}
single_transformer_blocks.{i}.{attn.to_q,attn.to_k,attn.to_v,proj_mlp}  single_blocks.{i}.linear1  1:1:1:4
single_transformer_blocks.{i}.{proj_out,norm.linear,attn.norm_q,attn.norm_k}  single_blocks.{i}.{linear2,modulation.linear,q_norm,k_norm}
x_embedder.proj                                               img_in.proj
time_text_embed.timestep_embedder.{linear_1,linear_2}         time_in.mlp.{0,2}
time_text_embed.guidance_embedder.{linear_1,linear_2}         guidance_in.mlp.{0,2}
time_text_embed.text_embedder.{linear_1,linear_2}             vector_in.{in_layer,out_layer}
context_embedder.proj_in                                      txt_in.input_embedder
context_embedder.time_text_embed.timestep_embedder.{linear_1,linear_2}  txt_in.t_embedder.mlp.{0,2}
context_embedder.time_text_embed.text_embedder.{linear_1,linear_2}  txt_in.c_embedder.{linear_1,linear_2}
context_embedder.token_refiner.refiner_blocks.{i}.attn.{to_q,to_k,to_v}  txt_in.individual_token_refiner.blocks.{i}.self_attn_qkv  1:1:1
context_embedder.token_refiner.refiner_blocks.{i}.attn.to_out.0  txt_in.individual_token_refiner.blocks.{i}.self_attn_proj
context_embedder.token_refiner.refiner_blocks.{i}.ff.net.{0.proj,2}  txt_in.individual_token_refiner.blocks.{i}.mlp.{fc1,fc2}
context_embedder.token_refiner.refiner_blocks.{i}.norm_out.linear  txt_in.individual_token_refiner.blocks.{i}.adaLN_modulation.1
norm_out.linear                                               final_layer.adaLN_modulation.1  swapped
proj_out                                                      final_layer.linear
";

/// What ComfyUI's own model calls its blocks: FLUX.1's names. HunyuanImage's are the same.
pub(super) const BLOCKS_OF_COMFYUI: &str = "
transformer_blocks.{i}.attn.{to_q,to_k,to_v}                  double_blocks.{i}.img_attn.qkv  1:1:1
transformer_blocks.{i}.attn.{add_q_proj,add_k_proj,add_v_proj}  double_blocks.{i}.txt_attn.qkv  1:1:1
transformer_blocks.{i}.attn.{to_out.0,to_add_out}             double_blocks.{i}.{img_attn,txt_attn}.proj
transformer_blocks.{i}.ff.net.{0.proj,2}                      double_blocks.{i}.img_mlp.{0,2}
transformer_blocks.{i}.ff_context.net.{0.proj,2}              double_blocks.{i}.txt_mlp.{0,2}
single_transformer_blocks.{i}.{attn.to_q,attn.to_k,attn.to_v,proj_mlp}  single_blocks.{i}.linear1  1:1:1:4
single_transformer_blocks.{i}.proj_out                        single_blocks.{i}.linear2
transformer_blocks.{i}.{norm1,norm1_context}.linear           double_blocks.{i}.{img_mod,txt_mod}.lin
single_transformer_blocks.{i}.norm.linear                     single_blocks.{i}.modulation.lin
context_embedder.token_refiner.refiner_blocks.{i}.attn.{to_q,to_k,to_v}  txt_in.individual_token_refiner.blocks.{i}.self_attn.qkv  1:1:1
context_embedder.token_refiner.refiner_blocks.{i}.attn.to_out.0  txt_in.individual_token_refiner.blocks.{i}.self_attn.proj
context_embedder.token_refiner.refiner_blocks.{i}.ff.net.{0.proj,2}  txt_in.individual_token_refiner.blocks.{i}.mlp.{0,2}
context_embedder.token_refiner.refiner_blocks.{i}.norm_out.linear  txt_in.individual_token_refiner.blocks.{i}.adaLN_modulation.1
context_embedder.proj_in                                      txt_in.input_embedder
context_embedder.time_text_embed.timestep_embedder.{linear_1,linear_2}  txt_in.t_embedder.{in_layer,out_layer}
context_embedder.time_text_embed.text_embedder.{linear_1,linear_2}  txt_in.c_embedder.{in_layer,out_layer}
transformer_blocks.{i}.attn.{norm_q,norm_k}  double_blocks.{i}.img_attn.norm.{query_norm,key_norm}.scale
transformer_blocks.{i}.attn.{norm_added_q,norm_added_k}  double_blocks.{i}.txt_attn.norm.{query_norm,key_norm}.scale
single_transformer_blocks.{i}.attn.{norm_q,norm_k}  single_blocks.{i}.norm.{query_norm,key_norm}.scale
";

/// What it calls the rest of this one.
const ENDS_OF_COMFYUI: &str = "
x_embedder.proj                                               img_in.proj
proj_out                                                      final_layer.linear
norm_out.linear                                               final_layer.adaLN_modulation.1  swapped
time_text_embed.timestep_embedder.{linear_1,linear_2}         time_in.{in_layer,out_layer}
time_text_embed.text_embedder.{linear_1,linear_2}             vector_in.{in_layer,out_layer}
time_text_embed.guidance_embedder.{linear_1,linear_2}         guidance_in.{in_layer,out_layer}
";

fn table() -> Vec<Rule> {
    let tables = [TABLE, BLOCKS_OF_COMFYUI, ENDS_OF_COMFYUI];
    tables.into_iter().flat_map(rules_of).collect()
}

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let signs = [
        "double_blocks.0.img_attn_qkv",
        "txt_in.individual_token_refiner.",
        "context_embedder.proj_in",
    ];
    if signs.iter().any(|sign| has(names, sign)) { table() } else { Vec::new() }
}

/// Its 20 double and 40 single blocks have FLUX.1's names in diffusers; the numbers tell them apart where
/// no other name does.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.any(&[
        "double_blocks.{i}.img_mod.linear",
        "double_blocks.{i}.txt_mod.linear",
        "double_blocks.{i}.img_mlp.fc1",
        "double_blocks.{i}.img_mlp.fc2",
        "double_blocks.{i}.txt_mlp.fc1",
        "double_blocks.{i}.txt_mlp.fc2",
        "single_blocks.{i}.modulation.linear",
        "context_embedder.proj_in",
        "context_embedder.token_refiner.refiner_blocks.{i}.attn.to_q",
        "txt_in.individual_token_refiner.blocks.{i}.self_attn_qkv",
    ]) || seen.starts(&[
        "txt_in.individual_token_refiner",
        "txt_in.input_embedder",
        "txt_in.t_embedder",
        "txt_in.c_embedder",
        "context_embedder.token_refiner",
    ]);
    let dotted = seen
        .0
        .iter()
        .any(|body| !body.flat && body.capture("double_blocks.{i}.img_attn_qkv").is_some());
    let singles = ["single_blocks", "single_transformer_blocks"].map(|start| seen.highest(start));
    let counted = seen.highest("double_blocks") == Some(19)
        || singles.iter().flatten().any(|at| (38..40).contains(at));
    let within = singles.iter().flatten().all(|&at| at < 40);
    (within && (named || dotted || counted)).then(|| Detected::published(table()))
}
