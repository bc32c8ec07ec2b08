//! ACE-Step 1.0: linear attention with convolutions behind it, and an encoder of lyrics; it has one layout (its authors'
//! `acestep/models/ace_step_transformer.py`, whose names ComfyUI keeps).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "ace_step_1", tables: &[BLOCKS, BESIDE], rules: OfBase::Detected, detect };

const BLOCKS: &str = "
transformer_blocks.{i}.{attn,cross_attn}.{to_q,to_k,to_v,to_out.0}
transformer_blocks.{i}.cross_attn.{add_q_proj,add_k_proj,add_v_proj,to_add_out}
transformer_blocks.{i}.ff.{inverted_conv,depth_conv,point_conv}.conv
";

/// Names that no other model has.
const BESIDE: &str = "
lyric_encoder.embed.out.0
lyric_encoder.encoders.{i}.self_attn.{linear_q,linear_k,linear_v,linear_out,linear_pos}
lyric_encoder.encoders.{i}.feed_forward.{w_1,w_2}
{lyric_proj,lyric_embs,speaker_embedder,genre_embedder}
timestep_embedder.{linear_1,linear_2}
t_block.1
projectors.{i}.{0,2,4}
proj_in.early_conv_layers.{0,2}
final_layer.linear
";

/// Of its blocks, only cross attention and convolutions are its own by name; its self attention by its width.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let block = |end: &str| format!("transformer_blocks.{{i}}.{end}");
    let named = ["cross_attn.to_v", "cross_attn.add_v_proj", "ff.inverted_conv.conv"];
    let named = named.iter().any(|end| seen.any(&[&block(end)]))
        || seen.starts(&["lyric_encoder", "lyric_proj", "speaker_embedder", "genre_embedder"]);
    let sized = ["to_q", "to_k", "to_v", "to_out.0"];
    let sized = sized.iter().any(|end| seen.sized(&block(&format!("attn.{end}")), (2560, 2560)));
    let rules = || rules_of(BLOCKS).into_iter().chain(rules_of(BESIDE));
    (named || sized).then(|| Detected::published(rules().collect()))
}
