//! Which spellings of a model's modules diffusers converts (`loaders/lora_pipeline.py`,
//! `loaders/lora_conversion_utils.py`), as a table (see `readings.rs`).
//!
//! What no line has is lost, but for diffusers' own names, which are taken. The lines were found by running
//! the functions of diffusers 0.42.0 on adapters of all modules, of single kinds of them, and of blocks alone.

use std::collections::BTreeSet;

use super::readings::{Fate, Form, below, model, readings_of};
use crate::adapter::layout;
use crate::ops::check::place::Found;
use crate::ops::check::subject::{Subject, some};

const READINGS: &str = "
flux 0.33 D lora_unet_|diffusion_model. takes double_blocks|single_blocks loses img_in|txt_in|time_in|vector_in|guidance_in|final_layer rest refused
flux 0.33 D lora_transformer_ takes transformer_blocks.*.attn|single_transformer_blocks.*.attn|context_embedder|norm_out|proj_out|time_text_embed|x_embedder rest lost
flux 0.33 D transformer. rest taken alpha dropped
flux 0.35.2 Aa base_model.model. rest refused
chroma 0.33 D lora_unet_|diffusion_model. takes double_blocks|single_blocks loses img_in|txt_in|final_layer rest refused
chroma 0.33 D lora_transformer_ rest refused
chroma 0.33 D transformer. rest taken alpha dropped
chroma 0.35.2 Aa base_model.model. rest refused
flux2 0.36 A diffusion_model.|base_model.model. takes double_blocks|single_blocks|img_in|txt_in|time_in|guidance_in|final_layer|double_stream_modulation_img.lin|double_stream_modulation_txt.lin|single_stream_modulation.lin|transformer_blocks|single_transformer_blocks rest refused
flux2 0.36 a diffusion_model.|base_model.model. rest refused
flux2 0.38 D lora_unet_ takes double_blocks|single_blocks|img_in|txt_in|time_in|final_layer.linear rest lost
flux3 0.42 Aa diffusion_model. rest taken alpha dropped
flux3 0.42 D diffusion_model. rest refused
ltx 0.34 Aa diffusion_model. loses patchify_proj|adaln_single rest taken alpha dropped
ltx 0.34 D diffusion_model. loses patchify_proj|adaln_single rest refused
ltx2 0.37 Aa diffusion_model.|text_embedding_projection. rest taken alpha dropped
ltx2 0.37 D diffusion_model. rest refused
ltx2_connectors 0.37 Aa diffusion_model.|text_embedding_projection. rest taken alpha dropped
krea2 0.39 A diffusion_model.|base_model.model. takes blocks|txtfusion|first|last|tmlp|tproj|txtmlp rest refused
krea2 0.39 aD diffusion_model.|base_model.model. rest refused
ideogram4 0.39 AaD diffusion_model. takes layers.*.attention.qkv|layers.*.attention.o|layers.*.feed_forward|layers.*.adaln_modulation rest refused
ideogram4 0.39 AaD - if .attention.qkv. takes layers.*.attention.qkv|layers.*.attention.o|layers.*.feed_forward|layers.*.adaln_modulation rest refused
ideogram4 0.39 AaD base_model.model. if .attention.qkv. rest refused
anima 0.39 Aa diffusion_model. loses transformer_blocks rest taken alpha dropped
anima 0.39 D diffusion_model. rest refused
cosmos 0.39 Aa diffusion_model. rest unknown
hunyuan_video 0.33 A diffusion_model.|transformer.|- if img_attn_qkv refuses txt_in.individual_token_refiner.blocks.*.self_attn_qkv rest taken
hunyuan_video 0.33 aD diffusion_model.|transformer.|lora_unet_|- if img_attn_qkv rest refused
z_image 0.36 A diffusion_model. loses *.attention.qkv|*.attention.out|x_embedder|final_layer rest taken
z_image 0.36 a diffusion_model. refuses *.attention.qkv|*.attention.out loses x_embedder|final_layer rest taken
z_image 0.36 a base_model.model.|- rest refused
z_image 0.36 D diffusion_model.|- loses *.attention.qkv|x_embedder|final_layer rest taken
z_image 0.36 D lora_unet_ loses x_embedder|final_layer rest taken
z_image 0.36 aD transformer. rest lost
lumina2 0.33 A diffusion_model. if .attention.qkv. takes *.attention|*.feed_forward|*.adaLN_modulation refuses final_layer rest unknown
lumina2 0.33 aD diffusion_model. rest refused
ace_step 0.40 Aa base_model.model.|- if q_proj|k_proj loses proj_in.1|proj_out.1 rest taken alpha dropped
minimax_h3 0.40 AaD diffusion_model.|lora_unet_|- takes blocks|token_refiner.blocks|final_layer|video_patch_proj|audio_patch_proj|condition_proj|time_embedder.proj_in|time_embedder.proj_out rest refused
wan 0.33 A diffusion_model. takes blocks.*.self_attn|blocks.*.cross_attn|blocks.*.ffn.0|blocks.*.ffn.2|time_projection|text_embedding|time_embedding|img_emb|head.head rest refused
wan 0.33 aD diffusion_model. takes blocks.*.self_attn|blocks.*.cross_attn|blocks.*.ffn.0|blocks.*.ffn.2 rest refused
wan 0.34 D lora_unet_ takes blocks blocks self_attn.q|self_attn.k|self_attn.v|self_attn.o|cross_attn.q|cross_attn.k|cross_attn.v|cross_attn.o|ffn.0|ffn.2 rest refused
qwen_image 0.35.2 AaD diffusion_model.|lora_unet_ rest taken
qwen_image 0.35.2 aD - rest taken
qwen_image 0.35.2 aD transformer. rest lost
hidream 0.34 Aa diffusion_model. rest taken alpha dropped
hidream 0.34 D diffusion_model. rest refused
ernie_image 0.39 Aa diffusion_model.|base_model.model. rest taken alpha dropped
ernie_image 0.39 D diffusion_model.|base_model.model. rest refused
unet 0.33 AaD lora_unet_|unet. rest taken
clip 0.33 AaD lora_te|text_encoder rest taken
";

/// Models whose pipelines have text encoders that take adapters.
const ENCODERS: [&str; 6] = ["unet", "clip", "t5", "flux", "chroma", "sd3"];

/// Models whose alphas go with factors in diffusers' own names.
const ALPHAS: [&str; 4] = ["flux", "chroma", "unet", "clip"];

/// The releases with which lines of the table begin, but for the oldest that is judged.
pub(super) const RELEASES: [&str; 8] =
    ["0.34", "0.35.2", "0.36", "0.37", "0.38", "0.39", "0.40", "0.42"];

/// What comes of the modules, the line of the table that says it, and whether alphas count; `None` if
/// nothing is known of the model.
struct Outcome {
    modules: Vec<Fate>,
    since: &'static str,
    drops_alpha: bool,
}

fn outcome(subject: &Subject<'_>) -> Option<Outcome> {
    let own = ["kohya", "comfyui", "diffusers", "peft"].contains(&subject.adapter.convention.name);
    let model = model(subject).filter(|_| own)?;
    let Form(form) = Form::of(subject);
    let published: BTreeSet<&str> = layout::of_one_layout(subject.adapter, true);
    let mut outcome = Outcome { modules: Vec::new(), since: "", drops_alpha: false };
    let readings = readings_of(READINGS, model);
    for module in &subject.adapter.modules {
        let (prefix, path) = below(subject, module);
        if prefix == "lora_te" || prefix == "text_encoder" {
            let taken = ENCODERS.contains(&model);
            outcome.modules.push(if taken { Fate::Taken } else { Fate::Lost });
            continue;
        }
        let found = readings.iter().find(|reading| reading.holds(subject, form, prefix));
        let Some(reading) = found else {
            // diffusers' own names, under the component's.
            let component = ["transformer.", "unet.", "prior.", "connectors.", "text_conditioner."]
                .contains(&prefix);
            let names = component && !published.contains(module.name.as_str());
            outcome.drops_alpha |= names && form == 'a' && !ALPHAS.contains(&model);
            outcome.modules.push(match (names, form) {
                (true, 'D') if prefix == "transformer." => Fate::Refused,
                (true, _) => Fate::Taken,
                (false, _) => Fate::Lost,
            });
            continue;
        };
        outcome.since = reading.since;
        outcome.drops_alpha |= reading.drops_alpha && form != 'A';
        let whole = reading.blocks.is_empty() || has_blocks(subject, &reading.blocks);
        let fate = reading.fate(path, prefix.ends_with('_'));
        outcome.modules.push(if whole { fate } else { Fate::Refused });
    }
    Some(outcome)
}

/// Whether every block from 0 on has all of these modules, in flat names.
fn has_blocks(subject: &Subject<'_>, parts: &[&str]) -> bool {
    let names: BTreeSet<&str> = subject.adapter.modules.iter().map(|m| m.name.as_str()).collect();
    let number = |name: &&str| name.split("blocks_").nth(1)?.split('_').next().map(str::to_owned);
    let blocks: BTreeSet<String> = names.iter().filter_map(number).collect();
    (0..blocks.len()).all(|block| {
        parts.iter().all(|part| {
            names.contains(format!("lora_unet_blocks_{block}_{}", part.replace('.', "_")).as_str())
        })
    })
}

/// Modules of plain factors of which this comes.
pub(super) fn modules(subject: &Subject<'_>, fate: Fate) -> Found {
    let outcome = outcome(subject)?;
    let pairs = subject.adapter.modules.iter().zip(outcome.modules);
    let found =
        pairs.filter(|(module, own)| *own == fate && ["lora", "dora"].contains(&module.family));
    some(found.map(|(module, _)| module.name.as_str().into()).collect())
}

/// Modules that are converted from this release on, and lost before.
pub(super) fn before(subject: &Subject<'_>, release: &str) -> Found {
    outcome(subject).filter(|outcome| outcome.since == release)?;
    modules(subject, Fate::Taken)
}

/// Modules whose alphas are passed over.
pub(super) fn dropped_alphas(subject: &Subject<'_>) -> Found {
    outcome(subject).filter(|outcome| outcome.drops_alpha)?;
    subject.scaled(|_| 1.0)
}

/// Whether a file of PEFT's names is one that is converted.
pub(super) fn reads_peft(subject: &Subject<'_>) -> bool {
    let Some(model) = model(subject) else { return false };
    let readings = readings_of(READINGS, model);
    readings.iter().any(|reading| reading.prefixes.contains(&"base_model.model."))
}

#[cfg(test)]
mod tests {
    use super::super::readings::parse;
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let lines = READINGS.lines().filter(|line| !line.is_empty());
        let wrong: Vec<&str> = lines.clone().filter(|line| parse(line).is_none()).collect();
        assert_eq!(wrong, Vec::<&str>::new());
        for reading in lines.filter_map(parse) {
            assert!(reading.since == "0.33" || RELEASES.contains(&reading.since));
            assert!(reading.rest.is_some() && !reading.prefixes.is_empty());
        }
    }
}
