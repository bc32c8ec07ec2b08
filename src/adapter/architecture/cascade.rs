//! Stable Cascade's prior (stage C): ComfyUI and kohya's scripts keep the published attention, whose projections
//! diffusers has one level higher (`convert_stable_cascade_unet_single_file_to_diffusers`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "cascade", tables: &[TABLE], rules: OfBase::Detected, detect };

/// The component's name in diffusers' pipeline.
pub(in crate::adapter) const PRIOR: &str = "prior";

const TABLE: &str = "
{down_blocks,up_blocks}.{i}.{i}.attention.{to_q,to_k,to_v,to_out.0}  {down_blocks,up_blocks}.{i}.{i}.attention.attn.{to_q,to_k,to_v,out_proj}
{down_blocks,up_blocks}.{i}.{i}.kv_mapper.1
{down_blocks,up_blocks}.{i}.{i}.channelwise.{0,2,4}
{down_blocks,up_blocks}.{i}.{i}.{depthwise,mapper,mapper_sca,mapper_crp}
down_downscalers.{i}.{i}.blocks.{i}
up_upscalers.{i}.{i}.blocks.{i}
{clip_txt_mapper,clip_txt_pooled_mapper,clip_img_mapper}
embedding.1
clf.1
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let layers =
        ["attention.to_q", "attention.attn.to_q", "kv_mapper.1", "channelwise.0", "mapper"];
    let sides = ["attention.to_k", "attention.to_v", "attention.attn.to_k", "attention.attn.to_v"];
    let outputs = ["attention.to_out.0", "attention.attn.out_proj", "channelwise.4"];
    let named = layers.iter().chain(&sides).chain(&outputs).any(|layer| {
        ["down_blocks", "up_blocks"]
            .iter()
            .any(|half| seen.any(&[&format!("{half}.{{i}}.{{i}}.{layer}")]))
    });
    (named || seen.starts(&["clip_txt_mapper", "clip_txt_pooled_mapper", "clip_img_mapper"]))
        .then(|| Detected { component: PRIOR, ..Detected::published(rules_of(TABLE)) })
}
