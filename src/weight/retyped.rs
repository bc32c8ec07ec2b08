//! Weights that become 8-bit codes beside others that stay as they are, where a container has a type per weight: its
//! config, its header or a tensor beside each says which.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::encoding::float8_rows;
use super::model::COMFY_METADATA;
use super::skip::names_layer;
use super::{Config, Encode, Weight};
use crate::format::{Dtype, Metadata};

/// What weights that change become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EightBit {
    /// Whole numbers.
    Integers,
    /// Floats of 4 bits of exponent, 3 of fraction.
    Floats,
}

impl EightBit {
    /// ComfyUI's word for it.
    pub(super) fn format(self) -> &'static str {
        match self {
            Self::Integers => "int8_tensorwise",
            Self::Floats => "float8_e4m3fn",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Integers => "int8",
            Self::Floats => "fp8",
        }
    }

    /// Whether a weight has such codes already: they are made anew, and nothing else is to be said of them.
    pub(crate) fn is_of(self, weight: &Weight) -> bool {
        let dtype = weight.parts.first().map(|codes| codes.dtype);
        weight.writer().is_some()
            && match self {
                Self::Integers => dtype == Some(Dtype::I8),
                Self::Floats => matches!(dtype, Some(Dtype::F8_E4M3 | Dtype::F8_E5M2)),
            }
    }

    /// What writes a weight of a model with this config so.
    ///
    /// # Errors
    /// Why its container has no such type beside its own.
    pub(crate) fn writer(
        self,
        config: &Config,
        weight: &Weight,
    ) -> Result<Arc<dyn Encode>, String> {
        let (rows, columns) = weight.matrix();
        let no = || {
            let (encoding, detail) = (weight.encoding, &weight.detail);
            format!(
                "loaders of {encoding}, {detail}, are not known to take {} beside it: leave out --touched for \
                 16-bit numbers",
                self.name()
            )
        };
        if self.is_of(weight) {
            return weight.writer().cloned().ok_or_else(no);
        }
        let ([_, _], Some(codes)) = (weight.shape.as_slice(), weight.parts.first()) else {
            return Err(no());
        };
        let eight_bit = weight.eight_bit();
        let made = match (self, config.method()) {
            (Self::Floats, Some("compressed-tensors")) => {
                float8_rows(codes, &weight.name, (rows, columns))
            }
            (Self::Integers, Some("compressed-tensors" | "mlx")) => eight_bit.integers.clone(),
            (Self::Integers, _) if eight_bit.in_file => eight_bit.integers.clone(),
            (Self::Floats, _) if eight_bit.in_file => eight_bit.floats.clone(),
            _ => None,
        };
        made.ok_or_else(no)
    }

    /// Says in a header's metadata which modules have it, where that is what describes them.
    pub(crate) fn describe_in_file(self, metadata: &mut Metadata, modules: &[String]) {
        let text = metadata.get(COMFY_METADATA).filter(|_| !modules.is_empty());
        let parsed: Option<Value> = text.and_then(|text| serde_json::from_str(text).ok());
        let Some(mut parsed) = parsed else { return };
        let layers = parsed.get_mut("layers").and_then(Value::as_object_mut);
        for (layer, settings) in layers.into_iter().flatten() {
            if modules.iter().any(|module| names_layer(layer, module)) {
                settings["format"] = self.format().into();
            }
        }
        metadata.insert(COMFY_METADATA.to_owned(), parsed.to_string());
    }

    /// Says in a model's `config.json` which modules have it.
    pub(crate) fn describe(self, config: &mut Map<String, Value>, modules: &[String]) {
        let text = config.get("text_config").and_then(Value::as_object);
        let is_described = |config: &Map<String, Value>| {
            super::config::KEYS.iter().any(|key| config.get(*key).is_some_and(Value::is_object))
        };
        let nested = text.is_some_and(is_described);
        let place = match config.get_mut("text_config").filter(|_| nested) {
            Some(Value::Object(text)) => text,
            _ => config,
        };
        for key in super::config::KEYS {
            let Some(Value::Object(fields)) = place.get_mut(key) else { continue };
            if fields.get("quant_method").and_then(Value::as_str) == Some("compressed-tensors") {
                self.add_group(fields, modules);
            } else {
                // MLX's own, whose groups stay as long as they are.
                for module in modules {
                    let group = fields.get("group_size").cloned().unwrap_or_else(|| 64.into());
                    fields.insert(module.clone(), json!({ "group_size": group, "bits": 8 }));
                }
            }
        }
    }

    /// A group of compressed-tensors' config, which names its modules: names come before classes.
    fn add_group(self, fields: &mut Map<String, Value>, modules: &[String]) {
        let (format, kind) = match self {
            Self::Integers => ("pack-quantized", "int"),
            Self::Floats => ("float-quantized", "float"),
        };
        let whole = fields.get("format").and_then(Value::as_str).unwrap_or(format).to_owned();
        let mut taken = 0;
        if let Some(Value::Object(groups)) = fields.get_mut("config_groups") {
            for group in groups.values_mut().filter_map(Value::as_object_mut) {
                if group.get("format").is_none_or(Value::is_null) {
                    group.insert("format".to_owned(), whole.clone().into());
                }
            }
            while groups.contains_key(&format!("group_{taken}")) {
                taken += 1;
            }
            let weights = json!({
                "actorder": null, "block_structure": null, "dynamic": false, "group_size": null, "num_bits": 8,
                "observer": "minmax", "observer_kwargs": {}, "strategy": "channel", "symmetric": true,
                "type": kind,
            });
            let group = json!({
                "format": format, "input_activations": null, "output_activations": null,
                "targets": modules, "weights": weights,
            });
            groups.insert(format!("group_{taken}"), group);
        }
        if whole != format {
            fields.insert("format".to_owned(), "mixed-precision".into());
        }
    }
}
