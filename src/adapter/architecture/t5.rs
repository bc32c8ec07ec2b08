//! T5's encoder, the text encoder of many image models. It has one layout; adapters' names may have lost
//! their dots (transformers `models/t5/modeling_t5.py`).

use super::{Architecture, Detected, Evidence, OfBase, Rule, Side, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "t5", tables: &[TABLE], rules: OfBase::Beside(|_| Vec::new()), detect };

const TABLE: &str = "
encoder.block.{i}.layer.{i}.SelfAttention.{q,k,v,o}
encoder.block.{i}.layer.{i}.DenseReluDense.{wi,wi_0,wi_1,wo}
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let rules = rules_of(TABLE);
    let own = rules.iter().any(|Rule { split, .. }| seen.any(&[split]));
    let detected =
        Detected { component: "text_encoder", kohya: Side::Split, ..Detected::published(rules) };
    own.then_some(detected)
}
