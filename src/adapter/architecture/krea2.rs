//! Krea 2: gated attention with few keys, text layers fused before the transformer (diffusers
//! `convert_krea2_transformer_checkpoint_to_diffusers`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "krea2", tables: &[TABLE, FUSED], rules: OfBase::Detected, detect };

const TABLE: &str = "
transformer_blocks.{i}.attn.{to_q,to_k,to_v,to_out.0,to_gate}  blocks.{i}.attn.{wq,wk,wv,wo,gate}
text_fusion.layerwise_blocks.{i}.attn.{to_q,to_k,to_v,to_out.0,to_gate}  txtfusion.layerwise_blocks.{i}.attn.{wq,wk,wv,wo,gate}
text_fusion.refiner_blocks.{i}.attn.{to_q,to_k,to_v,to_out.0,to_gate}  txtfusion.refiner_blocks.{i}.attn.{wq,wk,wv,wo,gate}
transformer_blocks.{i}.ff.{gate,up,down}                      blocks.{i}.mlp.{gate,up,down}
text_fusion.layerwise_blocks.{i}.ff.{gate,up,down}            txtfusion.layerwise_blocks.{i}.mlp.{gate,up,down}
text_fusion.refiner_blocks.{i}.ff.{gate,up,down}              txtfusion.refiner_blocks.{i}.mlp.{gate,up,down}
img_in                                                        first
final_layer.linear                                            last.linear
time_embed.{linear_1,linear_2}                                tmlp.{0,2}
time_mod_proj                                                 tproj.1
txt_in.{linear_1,linear_2}                                    txtmlp.{1,3}
text_fusion.projector                                         txtfusion.projector
";

/// A name of adapters whose trainer fused projections first.
const FUSED: &str = "
transformer_blocks.{i}.attn.{to_q,to_k,to_v}  transformer_blocks.{i}.attn.to_qkv  queries
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&["text_fusion", "txtfusion"])
        || seen.any(&[
            "blocks.{i}.attn.wq",
            "blocks.{i}.attn.wk",
            "blocks.{i}.attn.wv",
            "blocks.{i}.attn.wo",
            "blocks.{i}.attn.gate",
            "blocks.{i}.mlp.gate",
            "blocks.{i}.mlp.up",
            "transformer_blocks.{i}.attn.to_gate",
            "transformer_blocks.{i}.ff.gate",
            "transformer_blocks.{i}.ff.up",
        ]);
    let sized = seen.sized("transformer_blocks.{i}.attn.to_k", (1536, 6144))
        || seen.sized("transformer_blocks.{i}.attn.to_v", (1536, 6144))
        || seen.sized("transformer_blocks.{i}.attn.to_qkv", (9216, 6144));
    let rules = || rules_of(TABLE).into_iter().chain(rules_of(FUSED)).collect();
    (named || sized).then(|| Detected::published(rules()))
}
