//! HunyuanVideo 1.5: double blocks alone, with separate projections as published and fused ones in ComfyUI
//! (names and shapes of both classes; the order of the last modulation by their forwards).

use super::hunyuan_video::BLOCKS_OF_COMFYUI;
use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture = Architecture {
    name: "hunyuan_video_1_5",
    tables: &[TABLE, ENDS_OF_COMFYUI],
    rules: OfBase::Detected,
    detect,
};

const TABLE: &str = "
transformer_blocks.{i}.attn.{to_q,to_k,to_v,add_q_proj,add_k_proj,add_v_proj}  double_blocks.{i}.{img_attn_q,img_attn_k,img_attn_v,txt_attn_q,txt_attn_k,txt_attn_v}
transformer_blocks.{i}.attn.{to_out.0,to_add_out}             double_blocks.{i}.{img_attn_proj,txt_attn_proj}
transformer_blocks.{i}.ff.net.{0.proj,2}                      double_blocks.{i}.img_mlp.{fc1,fc2}
transformer_blocks.{i}.ff_context.net.{0.proj,2}              double_blocks.{i}.txt_mlp.{fc1,fc2}
transformer_blocks.{i}.{norm1,norm1_context}.linear           double_blocks.{i}.{img_mod,txt_mod}.linear
context_embedder.token_refiner.refiner_blocks.{i}.attn.{to_q,to_k,to_v}  txt_in.individual_token_refiner.blocks.{i}.self_attn_qkv  1:1:1
context_embedder.token_refiner.refiner_blocks.{i}.attn.to_out.0  txt_in.individual_token_refiner.blocks.{i}.self_attn_proj
context_embedder.token_refiner.refiner_blocks.{i}.ff.net.{0.proj,2}  txt_in.individual_token_refiner.blocks.{i}.mlp.{fc1,fc2}
context_embedder.token_refiner.refiner_blocks.{i}.norm_out.linear  txt_in.individual_token_refiner.blocks.{i}.adaLN_modulation.1
context_embedder.proj_in                                      txt_in.input_embedder
context_embedder.time_text_embed.timestep_embedder.{linear_1,linear_2}  txt_in.t_embedder.mlp.{0,2}
context_embedder.time_text_embed.text_embedder.{linear_1,linear_2}  txt_in.c_embedder.{linear_1,linear_2}
x_embedder.proj                                               img_in.proj
proj_out                                                      final_layer.linear
norm_out.linear                                               final_layer.adaLN_modulation.1  swapped
time_embed.timestep_embedder.{linear_1,linear_2}              time_in.mlp.{0,2}
context_embedder_2.{linear_1,linear_2,linear_3}               byt5_in.{fc1,fc2,fc3}
image_embedder.{linear_1,linear_2}                            vision_in.proj.{1,3}
cond_type_embed                                               cond_type_embedding
";

/// ComfyUI's names beside those of the blocks.
const ENDS_OF_COMFYUI: &str = "
time_embed.timestep_embedder.{linear_1,linear_2}  time_in.{in_layer,out_layer}
";

/// What it shares with others of its family has a width of its own.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&["byt5_in", "vision_in", "context_embedder_2", "cond_type_embed"])
        || seen.any(&["double_blocks.{i}.img_attn_q", "double_blocks.{i}.txt_attn_q"]);
    let shared = [
        "double_blocks.{i}.img_attn.qkv",
        "double_blocks.{i}.img_attn.proj",
        "double_blocks.{i}.txt_attn.qkv",
        "double_blocks.{i}.img_attn_proj",
        "double_blocks.{i}.img_mlp.fc1",
        "double_blocks.{i}.img_mlp.0",
        "double_blocks.{i}.txt_mlp.fc1",
        "double_blocks.{i}.txt_mlp.0",
        "transformer_blocks.{i}.attn.to_q",
        "transformer_blocks.{i}.attn.add_q_proj",
    ];
    let sized = shared.iter().any(|name| seen.width(name, &[2048]));
    let comfyui = || [BLOCKS_OF_COMFYUI, ENDS_OF_COMFYUI].into_iter().flat_map(rules_of).collect();
    let rules = || rules_of(TABLE);
    (named || sized).then(|| Detected { comfyui: comfyui(), ..Detected::published(rules()) })
}
