//! Schemes that are known by their tensors' names and not read: they are refused by name, not taken for
//! weights.

use super::{Encoding, Recognised};
use crate::error::Result;
use crate::weight::Stored;
use crate::weight::model::Model;

pub(super) const ENCODING: Encoding = Encoding { name: "unread", companions: &[], recognise };

/// Ending of a tensor's name, and whose it is.
const UNREAD: [(&str, &str); 9] = [
    (".q_weight", "EXL2"),
    (".trellis", "EXL3"),
    (".W_q", "HQQ"),
    ("._weight_qdata", "torchao"),
    (".weight:qdata", "torchao"),
    (".svdquant_lora_a", "SVDQuant"),
    (".weight_codebook", "ComfyUI's asym_w4a8_int8"),
    (".weight_sparse", "sparse compressed-tensors"),
    (".bitmask", "sparse compressed-tensors"),
];

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    match UNREAD.iter().find(|(ending, _)| stored.name.ends_with(ending)) {
        Some((_, scheme)) => {
            Err(Model::unsupported(stored, format!("a weight that {scheme} quantised")))
        }
        None => check_config(model, stored).map(|()| None),
    }
}

/// What the config alone says, of tensors that look like another scheme's.
fn check_config(model: &Model<'_>, stored: &Stored) -> Result<()> {
    let unread = ["aqlm", "eetq", "higgs", "hqq", "quanto", "spqr", "torchao", "vptq", "quark"];
    let coded =
        Some(stored.dtype).filter(|dtype| dtype.bitsize() == 8 || stored.name.ends_with("_packed"));
    let method = model.config.method().filter(|method| unread.contains(method));
    if let (Some(method), Some(_)) = (method, coded) {
        return Err(Model::unsupported(stored, format!("a weight that {method} quantised")));
    }
    let group = model.config.group(model.module(super::module_of(&stored.name)));
    let sparse = ["marlin-24", "sparse-24-bitmask", "sparse-bitmask"];
    let format = group.and_then(|group| group.format).filter(|format| sparse.contains(format));
    let transformed = ["transform_config", "sparsity_config"].iter().find(|key| {
        let fields = model.config.get(key).and_then(serde_json::Value::as_object);
        fields.is_some_and(|fields| {
            let dense = fields.get("format").is_some_and(|format| format == "dense");
            !fields.is_empty() && !dense && fields.values().any(|value| !value.is_null())
        })
    });
    match (coded, format, transformed) {
        (Some(_), Some(format), _) => {
            Err(Model::unsupported(stored, format!("compressed-tensors' {format}")))
        }
        (Some(_), _, Some(key)) => {
            Err(Model::unsupported(stored, format!("a weight of a model with a `{key}`")))
        }
        _ => Ok(()),
    }
}
