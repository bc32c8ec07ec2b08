//! Kandinsky 5 and 6: one layout, diffusers' own (diffusers `transformer_kandinsky.py`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "kandinsky", tables: &[TABLE, SIXTH], rules: OfBase::Detected, detect };

const TABLE: &str = "
time_embeddings.{in_layer,out_layer}
{text_embeddings,pooled_text_embeddings,visual_embeddings}.in_layer
text_transformer_blocks.{i}.{text_modulation.out_layer,self_attention.to_query}
text_transformer_blocks.{i}.self_attention.{to_key,to_value,out_layer}
text_transformer_blocks.{i}.feed_forward.{in_layer,out_layer}
visual_transformer_blocks.{i}.{visual_modulation.out_layer,self_attention.to_query}
visual_transformer_blocks.{i}.self_attention.{to_key,to_value,out_layer}
visual_transformer_blocks.{i}.cross_attention.{to_query,to_key,to_value,out_layer}
visual_transformer_blocks.{i}.feed_forward.{in_layer,out_layer}
out_layer.{modulation.out_layer,out_layer}
";

/// What the sixth has.
const SIXTH: &str = "
audio_embeddings.in_layer
audio_out_layer.{modulation.out_layer,out_layer}
video_time_embeddings.timestep_embedder.{linear_1,linear_2}
{video_text_embeddings,video_pooled_text_embeddings}.in_layer
video_text_transformer_blocks.{i}.{text_modulation.out_layer,attn.to_query,attn.to_key}
video_text_transformer_blocks.{i}.attn.{to_value,out_layer}
video_text_transformer_blocks.{i}.feed_forward.net.{0.proj,2}
audio_time_embeddings.timestep_embedder.{linear_1,linear_2}
{audio_text_embeddings,audio_pooled_text_embeddings}.in_layer
audio_text_transformer_blocks.{i}.{text_modulation.out_layer,attn.to_query,attn.to_key}
audio_text_transformer_blocks.{i}.attn.{to_value,out_layer}
audio_text_transformer_blocks.{i}.feed_forward.net.{0.proj,2}
visual_transformer_blocks.{i}.video_dec_block.visual_modulation.out_layer
visual_transformer_blocks.{i}.video_dec_block.self_attention.{to_query,to_key,to_value}
visual_transformer_blocks.{i}.video_dec_block.self_attention.out_layer
visual_transformer_blocks.{i}.video_dec_block.cross_attention.{to_query,to_key,to_value}
visual_transformer_blocks.{i}.video_dec_block.cross_attention.out_layer
visual_transformer_blocks.{i}.video_dec_block.feed_forward.net.{0.proj,2}
visual_transformer_blocks.{i}.audio_dec_block.visual_modulation.out_layer
visual_transformer_blocks.{i}.audio_dec_block.self_attention.{to_query,to_key,to_value}
visual_transformer_blocks.{i}.audio_dec_block.self_attention.out_layer
visual_transformer_blocks.{i}.audio_dec_block.cross_attention.{to_query,to_key,to_value}
visual_transformer_blocks.{i}.audio_dec_block.cross_attention.out_layer
visual_transformer_blocks.{i}.audio_dec_block.feed_forward.net.{0.proj,2}
visual_transformer_blocks.{i}.va_cross_attention.{to_query,to_key,to_value,out_layer}
visual_transformer_blocks.{i}.av_cross_attention.{to_query,to_key,to_value,out_layer}
visual_transformer_blocks.{i}.{va_modulation,av_modulation}.out_layer
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&[
        "visual_transformer_blocks",
        "text_transformer_blocks",
        "video_text_transformer_blocks",
        "audio_text_transformer_blocks",
    ]);
    let rules = || rules_of(TABLE).into_iter().chain(rules_of(SIXTH)).collect();
    named.then(|| Detected::published(rules()))
}
