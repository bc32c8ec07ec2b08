//! mlx-lm's adapters: their config, and factors turned from its orientation to ours.

use std::path::Path;

use serde_json::{Map, Value};

use super::convention::{self, Part};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::access::read_small;
use crate::format::{Checkpoint, Tensor};

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

/// Whether a config is mlx-lm's.
pub(super) fn is_config(document: &Map<String, Value>) -> bool {
    !document.contains_key("peft_type")
        && (document.contains_key("fine_tune_type") || document.contains_key("lora_parameters"))
}

/// Reads a config; `None` if the file is another tool's.
pub(super) fn open(path: &Path) -> Result<Option<MlxConfig>> {
    let text = read_small(path).in_file(path)?;
    let document = match serde_json::from_slice(&text) {
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
        tensors.push((name.to_owned(), view.spec.dtype, shape, bytes));
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
