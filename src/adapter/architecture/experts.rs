//! Mixtures of experts: an expert's three matrices are stored one by one, or all experts' together as
//! `gate_up_proj` and `down_proj` (transformers `conversion_mapping.py`). The stacks of gpt-oss and
//! Llama 4 are inputs × outputs; gpt-oss has gate and up in turns, column by column (transformers
//! `models/gpt_oss/modeling_gpt_oss.py`). MLX has gate, up and down in a stack each, under `switch_mlp`.
//!
//! What an adapter of whole parameters has for expert e of `experts.down_proj` is called
//! `experts.e.down_proj` here, so that every layout answers to every adapter.

use std::collections::BTreeSet;

use super::{Architecture, Cut, Names, OfBase, Rule, undetected};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "experts", tables: &[], rules: OfBase::Beside(rules), detect: undetected };

/// Where the experts of a layer are: Mixtral's place before transformers 5, and all others'.
const CONTAINERS: [&str; 4] = ["block_sparse_moe", "mlp", "feed_forward", "mixer"];

/// An expert's gate, up and down, stored one by one.
const SPELLINGS: [[&str; 3]; 2] = [["gate_proj", "up_proj", "down_proj"], ["w1", "w3", "w2"]];

/// What holds a layer's experts: transformers' modules, and mlx-lm's (`models/switch_layers.py`).
const HOLDERS: [&str; 2] = [EXPERTS, "switch_mlp"];
const EXPERTS: &str = "experts";

/// What a layer's router is called: by most, and by PhiMoE since transformers 5.
const ROUTERS: [&str; 2] = ["gate", "router"];

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let stored: BTreeSet<(&str, &str)> = names.iter().filter_map(|name| holder(name)).collect();
    let asked = stored.iter().map(|(container, _)| *container).chain(CONTAINERS);
    let asked: BTreeSet<&str> = asked.collect();
    let mut rules = Vec::new();
    let mut add = |split: String, published: String, cut| {
        if split != published {
            rules.push(Rule { split, published, cut });
        }
    };
    for (stored, holder) in stored {
        for asked in &asked {
            for own in ROUTERS {
                for other in ROUTERS {
                    let router = |container: &str, name| format!("{{*}}.{container}.{name}");
                    add(router(asked, other), router(stored, own), Cut::Whole);
                }
            }
            stacked(&format!("{stored}.{holder}"), asked, &mut add);
            for own in SPELLINGS {
                if holder == EXPERTS && names.iter().any(|name| is_one(name, &own)) {
                    one_by_one(stored, asked, own, &mut add);
                }
            }
        }
    }
    rules
}

/// The parts of a name that hold experts: the layer's container, and what is in it.
fn holder(name: &str) -> Option<(&str, &'static str)> {
    HOLDERS.into_iter().find_map(|holder| {
        let (above, below) = name.split_once(holder)?;
        let above = above.strip_suffix('.').filter(|_| below.starts_with('.'))?;
        Some((above.rsplit('.').next()?, holder))
    })
}

/// Whether a name is of one matrix of one expert, in this spelling.
fn is_one(name: &str, spelling: &[&str; 3]) -> bool {
    let below = name.split_once(".experts.").and_then(|(_, below)| below.split_once('.'));
    below.is_some_and(|(expert, own)| {
        spelling.contains(&own) && expert.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// What a base answers to that has a layer's experts in stacks. Unsloth's gpt-oss has them as lists of
/// layers, `gate_up_projs.0`, …
fn stacked(holder: &str, asked: &str, add: &mut impl FnMut(String, String, Cut)) {
    let stack = |name: &str| format!("{{*}}.{holder}.{name}");
    let expert = |name: &str| format!("{{*}}.{asked}.experts.{{e}}.{name}");
    let listed = |name: &str| format!("{{*}}.{asked}.experts.{name}s.{{e}}");
    let both = "gate_up_proj";
    add(expert(both), stack(both), Cut::Stack);
    add(listed(both), stack(both), Cut::Stack);
    for [gate, up, down] in SPELLINGS {
        let forms: [&dyn Fn(&str) -> String; 2] = [&expert, &listed];
        for name in forms {
            add(name(gate), stack(both), Cut::StackHalf(0));
            add(name(up), stack(both), Cut::StackHalf(1));
            add(name(down), stack("down_proj"), Cut::Stack);
            // Experts without a gate, and gates in a stack of their own.
            add(name(gate), stack("gate_proj"), Cut::Stack);
            add(name(up), stack("up_proj"), Cut::Stack);
        }
    }
}

/// What a base answers to that has every expert's matrices one by one.
fn one_by_one(
    stored: &str,
    asked: &str,
    own: [&str; 3],
    add: &mut impl FnMut(String, String, Cut),
) {
    let at = |container: &str, name: &str| format!("{{*}}.{container}.experts.{{i}}.{name}");
    let listed = |name: &str| format!("{{*}}.{asked}.experts.{name}s.{{i}}");
    let [gate, up, _] = own;
    for both in [at(asked, "gate_up_proj"), listed("gate_up_proj")] {
        add(at(stored, gate), both.clone(), Cut::nth(0, 2));
        add(at(stored, up), both, Cut::nth(1, 2));
    }
    for other in SPELLINGS {
        for (own, other) in own.iter().zip(other) {
            add(at(asked, other), at(stored, own), Cut::Whole);
            add(listed(other), at(stored, own), Cut::Whole);
        }
    }
}
