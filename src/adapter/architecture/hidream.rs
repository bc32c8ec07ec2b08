//! HiDream-I1: it has one layout, diffusers' own (diffusers `transformer_hidream_image.py`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "hidream", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
t_embedder.timestep_embedder.{linear_1,linear_2}
p_embedder.pooled_embedder.{linear_1,linear_2}
x_embedder.proj
double_stream_blocks.{i}.block.{adaLN_modulation.1,attn1.to_q,attn1.to_k,attn1.to_v}
double_stream_blocks.{i}.block.attn1.{to_out,to_q_t,to_k_t,to_v_t,to_out_t}
double_stream_blocks.{i}.block.ff_i.shared_experts.{w1,w2,w3}
double_stream_blocks.{i}.block.ff_i.experts.{i}.{w1,w2,w3}
double_stream_blocks.{i}.block.{ff_i.gate,ff_t.w1,ff_t.w2,ff_t.w3}
single_stream_blocks.{i}.block.{adaLN_modulation.1,attn1.to_q,attn1.to_k,attn1.to_v}
single_stream_blocks.{i}.block.attn1.to_out
single_stream_blocks.{i}.block.ff_i.shared_experts.{w1,w2,w3}
single_stream_blocks.{i}.block.ff_i.experts.{i}.{w1,w2,w3}
single_stream_blocks.{i}.block.ff_i.gate
final_layer.{linear,adaLN_modulation.1}
caption_projection.{i}.linear
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&["double_stream_blocks", "single_stream_blocks", "p_embedder"]);
    named.then(|| Detected::published(rules_of(TABLE)))
}
