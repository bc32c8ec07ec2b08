//! Language models whose projections some releases fuse: Phi-3 stores `qkv_proj` and `gate_up_proj`
//! where the same weights in Llama's layout are split (transformers `models/phi3/modeling_phi3.py`).

use super::{Architecture, Names, OfBase, Rule, fits, rules_of, undetected};

pub(super) static ARCHITECTURE: Architecture = Architecture {
    name: "language",
    tables: &[ATTENTION, LINEAR, MLP],
    rules: OfBase::Beside(rules),
    detect: undetected,
};

const ATTENTION: &str = "
{*}.self_attn.{q_proj,k_proj,v_proj}  {*}.self_attn.qkv_proj  queries
";

/// Linear attention, as trainers that keep every projection apart name it (transformers
/// `models/qwen3_5/modeling_qwen3_5.py`, `in_proj_qkv`).
const LINEAR: &str = "
{*}.linear_attn.{in_proj_q,in_proj_k,in_proj_v}  {*}.linear_attn.in_proj_qkv  values
";

const MLP: &str = "
{*}.mlp.{gate_proj,up_proj}  {*}.mlp.gate_up_proj  1:1
";

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    let has = |pattern| fits(names, pattern);
    // HunyuanImage 3 has the queries, key and value of one group of heads after another in it, and modules of none of
    // them (its authors' `hunyuan_image_3/hunyuan.py`, `HunyuanImage3SDPAAttention`).
    let grouped = has("{*}.gate_and_up_proj");
    if !grouped && has("{*}.self_attn.qkv_proj") || has("{*}.layers.{i}.self_attn.q_proj") {
        rules.extend(rules_of(ATTENTION));
    }
    if has("{*}.linear_attn.in_proj_qkv") || has("{*}.linear_attn.in_proj_q") {
        rules.extend(rules_of(LINEAR));
    }
    if has("{*}.mlp.gate_up_proj") || has("{*}.layers.{i}.mlp.gate_proj") {
        rules.extend(rules_of(MLP));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of a query of its would land on those of a key.
    #[test]
    fn groups_of_heads_are_no_thirds() {
        let fused = |mlp: &'static str| {
            let names = Names::from(["model.layers.0.self_attn.qkv_proj", mlp]);
            rules(&names).iter().any(|rule| rule.split.ends_with("q_proj"))
        };
        assert!(fused("model.layers.0.mlp.gate_up_proj"));
        assert!(!fused("model.layers.0.mlp.shared_mlp.gate_and_up_proj"));
    }
}
