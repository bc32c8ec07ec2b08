//! mlx-lm's adapters: their config, and factors turned from its orientation to ours. Those of a layer's
//! experts lie in stacks [E, rank, in] and [E, out, rank], which are not turned (mlx-lm `tuner/lora.py`,
//! `LoRASwitchLinear`); the stacks of Mixtral, Qwen's and OLMoE's are called `switch_mlp`.

use std::path::Path;

use serde_json::{Map, Value};

use super::convention::{self, Part};
use super::gguf::{MOST, stacked};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::access::read_config;
use crate::format::{Checkpoint, Tensor, json};

/// The tensor file's name in an adapter's directory.
pub const TENSORS_NAME: &str = "adapters.safetensors";

/// What mlx-lm's `adapter_config.json` says of the update (mlx-lm `tuner/utils.py`).
#[derive(Debug, Clone)]
pub struct MlxConfig {
    /// What B · A is multiplied by; mlx-lm does not divide by the rank.
    pub scale: f64,
    /// Whether modules carry DoRA's magnitudes.
    pub dora: bool,
}

/// mlx-lm's names of an expert's gate, up and down, transformers', and Mixtral's.
const EXPERTS: [(&str, &str, &str); 3] = [
    ("gate_proj", "gate_proj", "w1"),
    ("up_proj", "up_proj", "w3"),
    ("down_proj", "down_proj", "w2"),
];

/// The holder whose experts have Mixtral's names.
const MIXTRAL: &str = "block_sparse_moe";

/// The stack that a module of one expert is in, as mlx-lm calls it, and the expert's number.
pub(crate) fn stack_of(module: &str) -> Option<(String, usize)> {
    let (above, own) = module.rsplit_once('.')?;
    let (holder, expert) = above.rsplit_once('.')?;
    let holder = holder.strip_suffix(".experts")?;
    let expert = expert.parse().ok().filter(|_| expert.bytes().all(|b| b.is_ascii_digit()))?;
    let mixtral = holder.ends_with(MIXTRAL);
    let named = |known: &&(&str, &str, &str)| own == if mixtral { known.2 } else { known.1 };
    let (theirs, ..) = EXPERTS.iter().find(named)?;
    Some((format!("{holder}.switch_mlp.{theirs}"), expert))
}

/// The matrices of a stack of experts, each as a module of its own; any other tensor as it is.
fn apart(tensor: Tensor) -> Vec<Tensor> {
    let (name, dtype, shape, bytes) = &tensor;
    let place = name.rsplit_once('.').and_then(|(module, factor)| {
        let (above, theirs) = module.rsplit_once('.')?;
        let holder = above.strip_suffix(".switch_mlp")?;
        let (_, own, mixtral) = EXPERTS.iter().find(|known| known.0 == theirs)?;
        Some((holder, if holder.ends_with(MIXTRAL) { mixtral } else { own }, factor))
    });
    let (Some((holder, own, factor)), [experts @ 1..=MOST, rows, columns]) =
        (place, shape.as_slice())
    else {
        return vec![tensor];
    };
    let size = bytes.len() / experts;
    let one = |(expert, bytes): (usize, &[u8])| {
        let name = format!("{holder}.experts.{expert}.{own}.{factor}");
        (name, *dtype, vec![*rows, *columns], bytes.to_vec())
    };
    bytes.chunks_exact(size.max(1)).take(*experts).enumerate().map(one).collect()
}

/// The matrices of every stack under its name, an expert's after another's.
///
/// # Errors
/// If their numbers are not 0, 1, 2, …, or they differ in shape or dtype.
pub(super) fn together(tensors: Vec<Tensor>) -> Result<Vec<Tensor>> {
    stacked(tensors, |name| {
        let (module, factor) = name.rsplit_once('.')?;
        let (stack, expert) = stack_of(module)?;
        Some((format!("{stack}.{factor}"), expert))
    })
}

/// Whether a config is mlx-lm's.
pub(super) fn is_config(document: &Map<String, Value>) -> bool {
    !document.contains_key("peft_type")
        && (document.contains_key("fine_tune_type") || document.contains_key("lora_parameters"))
}

/// Reads a config; `None` if the file is another tool's.
pub(super) fn open(path: &Path) -> Result<Option<MlxConfig>> {
    let text = read_config(path).in_file(path)?;
    let document = match json::tree(&text) {
        Ok(Value::Object(document)) if is_config(&document) => document,
        _ => return Ok(None),
    };
    parse(&document).map(Some).in_file(path)
}

fn parse(document: &Map<String, Value>) -> Result<MlxConfig> {
    let kind = document.get("fine_tune_type").and_then(Value::as_str).unwrap_or("lora");
    if !["lora", "dora"].contains(&kind) {
        let reason = "mlx-lm's whole fine-tunes hold weights, not an adapter".to_owned();
        return Err(ErrorKind::UnsupportedType { peft_type: kind.to_owned(), reason }.into());
    }
    let scale = document.get("lora_parameters").and_then(|parameters| parameters.get("scale"));
    let scale =
        scale.and_then(Value::as_f64).filter(|scale| scale.is_finite()).ok_or_else(|| {
            let reason =
                "`lora_parameters` has no `scale`, so the update's size is unknown".to_owned();
            ErrorKind::BadConfig { reason }
        })?;
    Ok(MlxConfig { scale, dora: kind == "dora" })
}

/// The same tensors, factors turned from in × rank and rank × out to rank × in and out × rank.
pub(super) fn turned(file: Checkpoint) -> Result<Checkpoint> {
    let mut tensors: Vec<Tensor> = Vec::with_capacity(file.len());
    for name in file.names() {
        let view = file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
        let mut scratch = Vec::new();
        let bytes = view.all(&mut scratch)?;
        let factor = (convention::mlx().parse)(name).is_some_and(|key| key.part != Part::Magnitude);
        let (shape, bytes) = match view.spec.shape.as_slice() {
            [rows, columns] if factor => {
                (vec![*columns, *rows], transposed(bytes, *rows, *columns))
            }
            shape => (shape.to_vec(), bytes.to_vec()),
        };
        tensors.extend(apart((name.to_owned(), view.spec.dtype, shape, bytes)));
    }
    file.remade(tensors)
}

/// A rows × columns tensor's bytes as columns × rows.
pub(super) fn transposed(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let size = bytes.len().checked_div(rows * columns).unwrap_or(0).max(1);
    let mut turned = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            let at = (row * columns + column) * size;
            turned.extend_from_slice(bytes.get(at..at + size).unwrap_or_default());
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_twice_is_nothing() {
        let bytes: Vec<u8> = (0..24).collect();
        let once = transposed(&bytes, 3, 4);
        assert_eq!(once[..4], [0, 1, 8, 9]);
        assert_eq!(transposed(&once, 4, 3), bytes);
    }

    #[test]
    fn stacks_come_apart_and_together() {
        for (stack, second) in [
            ("model.layers.0.mlp.switch_mlp.up_proj", "model.layers.0.mlp.experts.1.up_proj"),
            ("a.block_sparse_moe.switch_mlp.up_proj", "a.block_sparse_moe.experts.1.w3"),
        ] {
            let bytes = vec![1, 2, 3, 4];
            let tensor =
                (format!("{stack}.lora_a"), crate::format::Dtype::U8, vec![2, 1, 2], bytes);
            let parts = apart(tensor.clone());
            assert_eq!(
                (parts[1].0.as_str(), &parts[1].3[..]),
                (&*format!("{second}.lora_a"), &[3, 4][..])
            );
            assert_eq!(stack_of(second), Some((stack.to_owned(), 1)));
            assert_eq!(together(parts.clone()).expect("even"), [tensor]);
            assert!(together(parts[1..].to_vec()).is_err());
        }
        assert_eq!(stack_of("a.mlp.experts.1.w3"), None);
        assert_eq!(stack_of("a.mlp.experts.+1.up_proj"), None);
    }

    #[test]
    fn configs_of_others_are_left_alone_and_bad_ones_refused() {
        let of = |text: &str| serde_json::from_str::<Map<String, Value>>(text).expect("JSON");
        assert!(!is_config(&of(r#"{"peft_type":"LORA","lora_parameters":{}}"#)));
        assert!(!is_config(&of("{}")));
        let good = of(r#"{"fine_tune_type":"dora","lora_parameters":{"rank":8,"scale":20.0}}"#);
        let good = parse(&good).expect("parses");
        assert!(good.dora && good.scale == 20.0);
        for bad in [
            r#"{"fine_tune_type":"full"}"#,
            r#"{"fine_tune_type":"lora"}"#,
            r#"{"lora_parameters":{"scale":"x"}}"#,
        ] {
            assert!(parse(&of(bad)).is_err(), "{bad}");
        }
    }
}
