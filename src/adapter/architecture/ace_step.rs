//! ACE-Step 1.5: a transformer that its checkpoint has below `decoder.`, and adapters mostly do not (diffusers
//! `_convert_non_diffusers_ace_step_lora_to_diffusers`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture = Architecture {
    name: "ace_step",
    tables: &[TABLE, WITHOUT_ROOT],
    rules: OfBase::Detected,
    detect,
};

const TABLE: &str = "
layers.{i}.self_attn.{to_q,to_k,to_v,to_out.0}  decoder.layers.{i}.self_attn.{q_proj,k_proj,v_proj,o_proj}
layers.{i}.cross_attn.{to_q,to_k,to_v,to_out.0}  decoder.layers.{i}.cross_attn.{q_proj,k_proj,v_proj,o_proj}
layers.{i}.mlp.{gate_proj,up_proj,down_proj}  decoder.layers.{i}.mlp.{gate_proj,up_proj,down_proj}
time_embed.{linear_1,linear_2,time_proj}  decoder.time_embed.{linear_1,linear_2,time_proj}
time_embed_r.{linear_1,linear_2,time_proj}  decoder.time_embed_r.{linear_1,linear_2,time_proj}
condition_embedder  decoder.condition_embedder
proj_in_conv  decoder.proj_in.1
proj_out_conv  decoder.proj_out.1
";

/// The same names as adapters have them.
const WITHOUT_ROOT: &str = "
layers.{i}.self_attn.{to_q,to_k,to_v,to_out.0}   layers.{i}.self_attn.{q_proj,k_proj,v_proj,o_proj}
layers.{i}.cross_attn.{to_q,to_k,to_v,to_out.0}  layers.{i}.cross_attn.{q_proj,k_proj,v_proj,o_proj}
layers.{i}.mlp.{gate_proj,up_proj,down_proj}
time_embed.{linear_1,linear_2,time_proj}
time_embed_r.{linear_1,linear_2,time_proj}
condition_embedder
proj_in_conv                                     proj_in.1
proj_out_conv                                    proj_out.1
";

/// Language models have the names of its self attention; none of them has its cross attention of this size.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&["time_embed_r", "decoder.time_embed_r"]);
    let sized = ["", "decoder."].iter().any(|root| {
        let name = |end: &str| format!("{root}layers.{{i}}.cross_attn.{end}");
        seen.sized(&name("q_proj"), (2048, 2048))
            || seen.sized(&name("k_proj"), (1024, 2048))
            || seen.sized(&name("to_q"), (2048, 2048))
            || seen.sized(&name("to_k"), (1024, 2048))
    });
    let rules = || rules_of(TABLE).into_iter().chain(rules_of(WITHOUT_ROOT)).collect();
    (named || sized).then(|| Detected::published(rules()))
}
