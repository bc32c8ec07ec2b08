//! T5's encoder, the text encoder of many image models. It has one layout; adapters' names may have lost
//! their dots (transformers `models/t5/modeling_t5.py`).

use super::{Architecture, Cut, Seen, Side, Table, Told, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "t5", rules: |_| Vec::new(), told };

const NAMES: [&str; 8] = [
    "encoder.block.{i}.layer.{i}.SelfAttention.q",
    "encoder.block.{i}.layer.{i}.SelfAttention.k",
    "encoder.block.{i}.layer.{i}.SelfAttention.v",
    "encoder.block.{i}.layer.{i}.SelfAttention.o",
    "encoder.block.{i}.layer.{i}.DenseReluDense.wi",
    "encoder.block.{i}.layer.{i}.DenseReluDense.wi_0",
    "encoder.block.{i}.layer.{i}.DenseReluDense.wi_1",
    "encoder.block.{i}.layer.{i}.DenseReluDense.wo",
];

fn told(seen: &Seen<'_>) -> Option<Told> {
    let rules = rules_of(&NAMES.map(|name| (name, name, Cut::Whole)) as &Table);
    let told = Told { component: "text_encoder", rules, kohya: Side::Split, t5: None };
    seen.any(&NAMES).then_some(told)
}
