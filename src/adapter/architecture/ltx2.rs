//! LTX-2 and 2.3: LTX-Video with a stream of audio beside (diffusers
//! `_convert_non_diffusers_ltx2_lora_to_diffusers`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "ltx2", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
proj_in                                                       patchify_proj
audio_proj_in                                                 audio_patchify_proj
time_embed.emb.timestep_embedder.{linear_1,linear_2}          adaln_single.emb.timestep_embedder.{linear_1,linear_2}
time_embed.linear                                             adaln_single.linear
audio_time_embed.emb.timestep_embedder.{linear_1,linear_2}    audio_adaln_single.emb.timestep_embedder.{linear_1,linear_2}
audio_time_embed.linear                                       audio_adaln_single.linear
av_cross_attn_video_scale_shift.emb.timestep_embedder.{linear_1,linear_2}  av_ca_video_scale_shift_adaln_single.emb.timestep_embedder.{linear_1,linear_2}
av_cross_attn_video_scale_shift.linear                        av_ca_video_scale_shift_adaln_single.linear
av_cross_attn_video_a2v_gate.emb.timestep_embedder.{linear_1,linear_2}  av_ca_a2v_gate_adaln_single.emb.timestep_embedder.{linear_1,linear_2}
av_cross_attn_video_a2v_gate.linear                           av_ca_a2v_gate_adaln_single.linear
av_cross_attn_audio_scale_shift.emb.timestep_embedder.{linear_1,linear_2}  av_ca_audio_scale_shift_adaln_single.emb.timestep_embedder.{linear_1,linear_2}
av_cross_attn_audio_scale_shift.linear                        av_ca_audio_scale_shift_adaln_single.linear
av_cross_attn_audio_v2a_gate.emb.timestep_embedder.{linear_1,linear_2}  av_ca_v2a_gate_adaln_single.emb.timestep_embedder.{linear_1,linear_2}
av_cross_attn_audio_v2a_gate.linear                           av_ca_v2a_gate_adaln_single.linear
caption_projection.{linear_1,linear_2}
audio_caption_projection.{linear_1,linear_2}
proj_out
audio_proj_out
transformer_blocks.{i}.attn1.{to_q,to_k,to_v,to_out.0}
transformer_blocks.{i}.audio_attn1.{to_q,to_k,to_v,to_out.0}
transformer_blocks.{i}.attn2.{to_q,to_k,to_v,to_out.0}
transformer_blocks.{i}.audio_attn2.{to_q,to_k,to_v,to_out.0}
transformer_blocks.{i}.audio_to_video_attn.{to_q,to_k,to_v,to_out.0}
transformer_blocks.{i}.video_to_audio_attn.{to_q,to_k,to_v,to_out.0}
transformer_blocks.{i}.ff.net.{0.proj,2}
transformer_blocks.{i}.audio_ff.net.{0.proj,2}
{prompt_adaln,audio_prompt_adaln}.{linear,emb.timestep_embedder.linear_1,emb.timestep_embedder.linear_2}  {prompt_adaln_single,audio_prompt_adaln_single}.{linear,emb.timestep_embedder.linear_1,emb.timestep_embedder.linear_2}
transformer_blocks.{i}.{attn1,attn2,audio_attn1,audio_attn2,audio_to_video_attn,video_to_audio_attn}.{norm_q,norm_k}  transformer_blocks.{i}.{attn1,attn2,audio_attn1,audio_attn2,audio_to_video_attn,video_to_audio_attn}.{q_norm,k_norm}
";

/// Whatever speaks of audio; of video's blocks alone the width tells it from LTX-Video's.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&[
        "audio_proj_in",
        "audio_proj_out",
        "audio_patchify_proj",
        "audio_time_embed",
        "audio_adaln_single",
        "audio_caption_projection",
        "av_cross_attn_video_scale_shift",
        "av_cross_attn_video_a2v_gate",
        "av_cross_attn_audio_scale_shift",
        "av_cross_attn_audio_v2a_gate",
        "av_ca_video_scale_shift_adaln_single",
        "av_ca_a2v_gate_adaln_single",
        "av_ca_audio_scale_shift_adaln_single",
        "av_ca_v2a_gate_adaln_single",
        "prompt_adaln",
        "prompt_adaln_single",
        "audio_prompt_adaln",
        "audio_prompt_adaln_single",
    ]);
    let blocks = rules_of(TABLE).into_iter().any(|rule| {
        let audio = rule.split.contains(".audio_") || rule.split.contains("_to_audio_attn");
        audio && seen.any(&[&rule.split, &rule.published])
    });
    let attention = ["transformer_blocks.{i}.attn1.to_q", "transformer_blocks.{i}.attn2.to_q"];
    let sized = attention.iter().any(|name| seen.width(name, &[4096]))
        || seen.sized("patchify_proj", (4096, 128));
    (named || blocks || sized).then(|| Detected::published(rules_of(TABLE)))
}
