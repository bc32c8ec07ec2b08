//! HunyuanImage 2.1: HunyuanVideo's design, with FLUX.1's names as published.

use super::hunyuan_video::BLOCKS_OF_COMFYUI;
use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "hunyuan_image", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
x_embedder.proj                                            img_in.proj
time_guidance_embed.timestep_embedder.{linear_1,linear_2}  time_in.{in_layer,out_layer}
norm_out.linear                                            final_layer.adaLN_modulation.1  swapped
proj_out                                                   final_layer.linear
";

/// What it shares with FLUX.1 and HunyuanVideo has a width of its own; all of its ends are together in no other model.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let shared = [
        "double_blocks.{i}.img_attn.qkv",
        "double_blocks.{i}.img_attn.proj",
        "double_blocks.{i}.txt_attn.qkv",
        "double_blocks.{i}.txt_attn.proj",
        "double_blocks.{i}.img_mlp.0",
        "double_blocks.{i}.txt_mlp.0",
        "single_blocks.{i}.linear1",
        "transformer_blocks.{i}.attn.to_q",
        "transformer_blocks.{i}.attn.add_q_proj",
        "single_transformer_blocks.{i}.attn.to_q",
        "single_transformer_blocks.{i}.proj_mlp",
        "txt_in.individual_token_refiner.blocks.{i}.self_attn.qkv",
        "context_embedder.token_refiner.refiner_blocks.{i}.attn.to_q",
    ];
    let sized = shared.iter().any(|name| seen.width(name, &[3584]));
    let split = seen.starts(&["time_guidance_embed"]) && seen.starts(&["context_embedder.token_refiner"]);
    let published = seen.starts(&["time_in.in_layer"])
        && seen.starts(&["txt_in.individual_token_refiner"])
        && !seen.starts(&["vector_in", "guidance_in"])
        && !seen.width("double_blocks.{i}.img_attn.qkv", &[3072]);
    let rules = || rules_of(BLOCKS_OF_COMFYUI).into_iter().chain(rules_of(TABLE)).collect();
    (sized || split || published).then(|| Detected::published(rules()))
}
