//! Mixtures of experts: an expert's three matrices are stored one by one, or all experts' together as
//! `gate_up_proj` and `down_proj` (transformers `conversion_mapping.py`). The stacks of gpt-oss and
//! Llama 4 are inputs × outputs; gpt-oss has gate and up in turns, column by column (transformers
//! `models/gpt_oss/modeling_gpt_oss.py`).
//!
//! What an adapter of whole parameters has for expert e of `experts.down_proj` is called
//! `experts.e.down_proj` here, so that every layout answers to every adapter.

use super::{Architecture, Cut, Names, OfBase, Rule, untold};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "experts", tables: &[], rules: OfBase::Beside(rules), told: untold };

/// Where the experts of a layer are: Mixtral's place before transformers 5, and all others'.
const CONTAINERS: [&str; 3] = ["block_sparse_moe", "mlp", "feed_forward"];

/// An expert's gate, up and down, stored one by one.
const SPELLINGS: [[&str; 3]; 2] = [["gate_proj", "up_proj", "down_proj"], ["w1", "w3", "w2"]];

fn rules(names: &Names<'_>) -> Vec<Rule> {
    if !names.iter().any(|name| name.contains(".experts.")) {
        return Vec::new();
    }
    let mut rules = Vec::new();
    let mut add = |split: String, published: String, cut| {
        if split != published {
            rules.push(Rule { split, published, cut });
        }
    };
    let present = |container: &&str| {
        let inside = format!(".{container}.experts.");
        names.iter().any(|name| name.contains(&inside))
    };
    for stored in CONTAINERS.into_iter().filter(present) {
        for asked in CONTAINERS {
            let router = |container: &str| format!("{{*}}.{container}.gate");
            add(router(asked), router(stored), Cut::Whole);
            stacked(stored, asked, &mut add);
            for own in SPELLINGS {
                let ending = format!(".experts.0.{}", own[2]);
                if names.iter().any(|name| name.ends_with(&ending)) {
                    one_by_one(stored, asked, own, &mut add);
                }
            }
        }
    }
    rules
}

/// What a base answers to that has a layer's experts in stacks.
fn stacked(stored: &str, asked: &str, add: &mut impl FnMut(String, String, Cut)) {
    let stack = |name: &str| format!("{{*}}.{stored}.experts.{name}");
    let expert = |name: &str| format!("{{*}}.{asked}.experts.{{e}}.{name}");
    add(expert("gate_up_proj"), stack("gate_up_proj"), Cut::Stack);
    for [gate, up, down] in SPELLINGS {
        add(expert(gate), stack("gate_up_proj"), Cut::StackHalf(0));
        add(expert(up), stack("gate_up_proj"), Cut::StackHalf(1));
        add(expert(down), stack("down_proj"), Cut::Stack);
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
    let [gate, up, _] = own;
    add(at(stored, gate), at(asked, "gate_up_proj"), Cut::nth(0, 2));
    add(at(stored, up), at(asked, "gate_up_proj"), Cut::nth(1, 2));
    for other in SPELLINGS {
        for (own, other) in own.iter().zip(other) {
            add(at(asked, other), at(stored, own), Cut::Whole);
        }
    }
}
