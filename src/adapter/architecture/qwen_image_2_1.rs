//! Qwen-Image 2.1: one stream with gated layers, which ComfyUI fuses (diffusers
//! `transformer_qwenimage_2_1.py`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture = Architecture {
    name: "qwen_image_2_1",
    tables: &[TABLE, COMFYUI],
    rules: OfBase::Detected,
    detect,
};

const TABLE: &str = "
time_text_embed.timestep_embedder.{linear_1,linear_2}
txt_in.{in_layer,out_layer}
img_in
modulation.1
transformer_blocks.{i}.attn.{to_q,to_k,to_v,to_out.0}
transformer_blocks.{i}.img_mlp.{proj,out,gate_layer}
norm_out.linear
proj_out
";

const COMFYUI: &str = "
transformer_blocks.{i}.img_mlp.{gate_layer,proj}  transformer_blocks.{i}.img_mlp.gate_up  1:1  any
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.any(&[
        "transformer_blocks.{i}.img_mlp.gate_layer",
        "transformer_blocks.{i}.img_mlp.proj",
        "transformer_blocks.{i}.img_mlp.out",
        "transformer_blocks.{i}.img_mlp.gate_up",
    ]);
    let (rules, comfyui) = (|| rules_of(TABLE), || rules_of(COMFYUI));
    named.then(|| Detected { comfyui: comfyui(), ..Detected::published(rules()) })
}
