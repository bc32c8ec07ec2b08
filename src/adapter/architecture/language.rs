//! Language models whose projections some releases fuse: Phi-3 stores `qkv_proj` and `gate_up_proj`
//! where the same weights in Llama's layout are split (transformers `models/phi3/modeling_phi3.py`).

use super::{Architecture, Names, OfBase, Rule, fits, rules_of, untold};

pub(super) static ARCHITECTURE: Architecture = Architecture {
    name: "language",
    tables: &[ATTENTION, MLP],
    rules: OfBase::Beside(rules),
    told: untold,
};

const ATTENTION: &str = "
{*}.self_attn.{q_proj,k_proj,v_proj}  {*}.self_attn.qkv_proj  queries
";

const MLP: &str = "
{*}.mlp.{gate_proj,up_proj}  {*}.mlp.gate_up_proj  1:1
";

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    let has = |pattern| fits(names, pattern);
    if has("{*}.self_attn.qkv_proj") || has("{*}.layers.{i}.self_attn.q_proj") {
        rules.extend(rules_of(ATTENTION));
    }
    if has("{*}.mlp.gate_up_proj") || has("{*}.layers.{i}.mlp.gate_proj") {
        rules.extend(rules_of(MLP));
    }
    rules
}
