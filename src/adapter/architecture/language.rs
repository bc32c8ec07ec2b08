//! Language models whose projections some releases fuse: Phi-3 stores `qkv_proj` and `gate_up_proj`
//! where the same weights in Llama's layout are split (transformers `models/phi3/modeling_phi3.py`).

use super::{Architecture, Cut, Names, Rule, fits, rules_of, untold};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "language", rules, told: untold };

const ATTENTION: [(&str, &str, Cut); 3] = [
    ("{*}.self_attn.q_proj", "{*}.self_attn.qkv_proj", Cut::First),
    ("{*}.self_attn.k_proj", "{*}.self_attn.qkv_proj", Cut::Middle),
    ("{*}.self_attn.v_proj", "{*}.self_attn.qkv_proj", Cut::Last),
];

/// Linear attention, as trainers that keep every projection apart name it: queries and keys have as many
/// rows as each other, values the rest (transformers `models/qwen3_5/modeling_qwen3_5.py`,
/// `in_proj_qkv`).
const LINEAR: [(&str, &str, Cut); 3] = [
    ("{*}.linear_attn.in_proj_q", "{*}.linear_attn.in_proj_qkv", Cut::First),
    ("{*}.linear_attn.in_proj_k", "{*}.linear_attn.in_proj_qkv", Cut::Second),
    ("{*}.linear_attn.in_proj_v", "{*}.linear_attn.in_proj_qkv", Cut::Last),
];

const MLP: [(&str, &str, Cut); 2] = [
    ("{*}.mlp.gate_proj", "{*}.mlp.gate_up_proj", Cut::nth(0, 2)),
    ("{*}.mlp.up_proj", "{*}.mlp.gate_up_proj", Cut::nth(1, 2)),
];

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    let has = |pattern| fits(names, pattern);
    if has("{*}.self_attn.qkv_proj") || has("{*}.layers.{i}.self_attn.q_proj") {
        rules.extend(rules_of(&ATTENTION));
    }
    if has("{*}.linear_attn.in_proj_qkv") || has("{*}.linear_attn.in_proj_q") {
        rules.extend(rules_of(&LINEAR));
    }
    if has("{*}.mlp.gate_up_proj") || has("{*}.layers.{i}.mlp.gate_proj") {
        rules.extend(rules_of(&MLP));
    }
    rules
}
