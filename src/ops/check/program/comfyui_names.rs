//! Which spellings of a model's modules ComfyUI has in its map of keys (`comfy/lora.py`,
//! `model_lora_keys_unet`), as a table (see `readings.rs`). Every model that it has is taken in its own names
//! below `diffusion_model.` and flattened behind `lora_unet_`; the lines say what is taken beside these.

use std::collections::BTreeSet;

use super::readings::{Fate, Layout, below, model, readings_of};
use crate::adapter::layout;
use crate::ops::check::place::{Found, Place};
use crate::ops::check::subject::{Subject, some};

const READINGS: &str = "
flux 2025 AaD diffusion_model.|lora_unet_ names published rest taken
flux 2025 AaD transformer.|lora_transformer_|lycoris_|- names diffusers rest taken
chroma 2025 AaD diffusion_model.|lora_unet_ names published rest taken
chroma 2025 AaD transformer.|lora_transformer_|lycoris_|- loses distilled_guidance_layer names diffusers rest taken
flux2 2026 AaD diffusion_model.|lora_unet_ names published rest taken
flux2 2026 AaD transformer.|lora_transformer_|lycoris_|- loses double_stream_modulation_img|double_stream_modulation_txt|single_stream_modulation|time_guidance_embed names diffusers rest taken
sd3 2025 AaD diffusion_model.|lora_unet_ names published rest taken
sd3 2025 AaD transformer.|base_model.model.|lora_transformer_|lycoris_ names diffusers rest taken
auraflow 2025 AaD diffusion_model.|lora_unet_ names published rest taken
auraflow 2025 AaD transformer. names diffusers rest taken
pixart 2025 AaD diffusion_model.|lora_unet_ names published rest taken
pixart 2025 AaD transformer.|base_model.model. names diffusers rest taken
hunyuan_video 2025 AaD diffusion_model.|transformer. loses time_in.mlp|guidance_in.mlp|txt_in.t_embedder.mlp|txt_in.c_embedder.linear_1|txt_in.c_embedder.linear_2 names published rest taken
hunyuan_video 2025 AaD lora_unet_ loses time_in.mlp|guidance_in.mlp|txt_in.t_embedder.mlp|txt_in.c_embedder.linear_1|txt_in.c_embedder.linear_2|*.mlp.fc1|*.mlp.fc2|*_mlp.fc1|*_mlp.fc2|*_mod.linear|*.modulation.linear names published rest taken
hunyuan_video_1_5 2026 AaD diffusion_model.|transformer. loses time_in.mlp|txt_in.t_embedder.mlp|txt_in.c_embedder.linear_1|txt_in.c_embedder.linear_2|*.img_attn_q|*.img_attn_k|*.img_attn_v|*.txt_attn_q|*.txt_attn_k|*.txt_attn_v names published rest taken
hunyuan_video_1_5 2026 AaD lora_unet_ loses time_in.mlp|txt_in.t_embedder.mlp|txt_in.c_embedder.linear_1|txt_in.c_embedder.linear_2|*.img_attn_q|*.img_attn_k|*.img_attn_v|*.txt_attn_q|*.txt_attn_k|*.txt_attn_v|*.mlp.fc1|*.mlp.fc2|*_mlp.fc1|*_mlp.fc2|*_mod.linear names published rest taken
hunyuan_image 2025 AaD diffusion_model.|lora_unet_|transformer. names published rest taken
hidream 2025 AaD diffusion_model.|lora_unet_|transformer.|lycoris_ rest taken
mochi 2025 AaD diffusion_model.|lora_unet_|- names published rest taken
omnigen2 2025 AaD diffusion_model.|lora_unet_|- names published rest taken
ltx 2025 AaD diffusion_model.|lora_unet_|- names published rest taken
ltx2 2026 AaD diffusion_model.|lora_unet_|text_embedding_projection.|- names published rest taken
minimax_h3 2026 AaD diffusion_model.|lora_unet_|- names published rest taken
qwen_image 2025 AaD diffusion_model.|lora_unet_|transformer.|lycoris_|- rest taken
qwen_image_2_1 2026 AaD diffusion_model.|lora_unet_|transformer.|lycoris_|- rest taken
krea2 2026 AaD lora_unet_ names published rest taken
krea2 2026 AaD diffusion_model.|transformer.|lycoris_|- rest taken
z_image 2026 AaD lora_unet_ names published rest taken
z_image 2026 AaD diffusion_model.|transformer.|lycoris_|- rest taken
lumina2 2025 AaD diffusion_model.|lora_unet_ names published rest taken
kandinsky 2026 AaD diffusion_model.|lora_unet_|transformer.|- loses video_text_transformer_blocks rest taken
ace_step 2026 AaD diffusion_model.|lora_unet_ takes decoder rest lost
ace_step 2026 AaD base_model.model.|lycoris_ names published rest taken
ernie_image 2026 AaD diffusion_model.|lora_unet_|transformer. rest taken
wan 2025 AaD diffusion_model.|lora_unet_ names published rest taken
cosmos 2025 AaD diffusion_model.|lora_unet_ names published rest taken
anima 2026 AaD diffusion_model.|lora_unet_ names published rest taken
cosmos1 2025 AaD diffusion_model.|lora_unet_ names published rest taken
ideogram4 2026 AaD diffusion_model.|lora_unet_ names published rest taken
stable_audio 2025 AaD diffusion_model.|lora_unet_ names published rest taken
stable_audio_3 2026 AaD diffusion_model.|lora_unet_ rest taken
sana 2026 AaD diffusion_model.|lora_unet_ names published rest taken
";

/// Modules of denoisers that it has no key for; `None` also if nothing is known of the model.
pub(super) fn lost(subject: &Subject<'_>) -> Found {
    let readings = readings_of(READINGS, model(subject)?);
    if readings.is_empty() {
        return None;
    }
    let published: BTreeSet<&str> = layout::of_one_layout(subject.adapter, true);
    let diffusers: BTreeSet<&str> = layout::of_one_layout(subject.adapter, false);
    let lost = subject.adapter.modules.iter().filter(|module| {
        let (prefix, path) = below(subject, module);
        if ["lora_te", "text_encoder", "unet.", "connectors."].contains(&prefix) {
            return false;
        }
        let Some(reading) = readings.iter().find(|own| own.holds(subject, 'A', prefix)) else {
            return true;
        };
        let other = reading.loses_side.is_some_and(|side| {
            let names = if side == Layout::Published { &published } else { &diffusers };
            names.contains(module.name.as_str())
        });
        other || reading.fate(path, prefix.ends_with('_')) == Fate::Lost
    });
    some(lost.map(|module| Place::from(module.name.as_str())).collect())
}

/// Whether it has the model.
pub(super) fn is_known(subject: &Subject<'_>) -> bool {
    model(subject).is_some_and(|model| !readings_of(READINGS, model).is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::readings::parse;
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let lines = READINGS.lines().filter(|line| !line.is_empty());
        let wrong: Vec<&str> = lines.filter(|line| parse(line).is_none()).collect();
        assert_eq!(wrong, Vec::<&str>::new());
    }
}
