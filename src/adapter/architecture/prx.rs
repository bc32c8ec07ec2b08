//! PRX: it has one layout, diffusers' own (diffusers `transformer_prx.py`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "prx", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
img_in
txt_in
time_in.{in_layer,out_layer}
blocks.{i}.attention.{img_qkv_proj,txt_kv_proj,to_out.0}
blocks.{i}.{gate_proj,up_proj,down_proj,modulation.lin}
final_layer.{linear,adaLN_modulation.1}
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let own = ["blocks.{i}.attention.img_qkv_proj", "blocks.{i}.attention.txt_kv_proj"];
    seen.any(&own).then(|| Detected::published(rules_of(TABLE)))
}
