//! MiniMax-H3: attention wider than the layers it reads, gates after what they gate as published (diffusers
//! `_convert_non_diffusers_minimax_h3_lora_to_diffusers`).

use super::{Architecture, Detected, Evidence, OfBase, capture, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "minimax_h3", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
transformer_blocks.{i}.attn.{to_q,to_k,to_v}            blocks.{i}.attn.qkv_proj  1:1:1  any
token_refiner.refiner_blocks.{i}.attn.{to_q,to_k,to_v}  token_refiner.blocks.{i}.attn.qkv_proj  1:1:1  any
transformer_blocks.{i}.attn.to_out.0                    blocks.{i}.attn.out_proj
transformer_blocks.{i}.ff.net.0.proj                    blocks.{i}.mlp.fc1  swapped
transformer_blocks.{i}.ff.net.2                         blocks.{i}.mlp.fc2
transformer_blocks.{i}.adaln_proj.linear                blocks.{i}.adaln_proj.linear
token_refiner.refiner_blocks.{i}.attn.to_out.0          token_refiner.blocks.{i}.attn.out_proj
token_refiner.refiner_blocks.{i}.ff.net.0.proj          token_refiner.blocks.{i}.mlp.fc1  swapped
token_refiner.refiner_blocks.{i}.ff.net.2               token_refiner.blocks.{i}.mlp.fc2
token_refiner.refiner_blocks.{i}.adaln_proj.linear      token_refiner.blocks.{i}.adaln_proj.linear
proj_in                                                 video_patch_proj
audio_proj_in                                           audio_patch_proj
context_embedder                                        condition_proj
time_embedder.{linear_1,linear_2}                       time_embedder.{proj_in,proj_out}
norm_out.linear                                         final_layer.adaln_proj.linear
proj_out                                                final_layer.video_out
audio_proj_out                                          final_layer.audio_out
";

/// Whether a module's tensor has the queries, keys and values of one head after another, as DiffSynth-Studio stores
/// them in files whose factors are called `lora_A.default`; all others have all queries first. Shapes do not tell.
pub(in crate::adapter) fn by_heads(module: &str, tensor: &str) -> bool {
    let fused = ["blocks.{i}.attn.qkv_proj", "token_refiner.blocks.{i}.attn.qkv_proj"];
    let path = module.strip_prefix("diffusion_model.").unwrap_or(module);
    tensor.contains(".default.") && fused.iter().any(|name| capture(name, path).is_some())
}

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&["video_patch_proj", "audio_patch_proj", "token_refiner"])
        || seen.any(&[
            "blocks.{i}.attn.qkv_proj",
            "blocks.{i}.attn.out_proj",
            "blocks.{i}.adaln_proj.linear",
            "transformer_blocks.{i}.adaln_proj.linear",
        ]);
    let sized = seen.width("transformer_blocks.{i}.attn.to_q", &[5376])
        || seen.width("transformer_blocks.{i}.ff.net.0.proj", &[5376]);
    (named || sized).then(|| Detected::published(rules_of(TABLE)))
}
