//! What a model's configs say of its quantisation: `quantization_config` of `config.json` (or of its
//! `text_config`), MLX's `quantization`, and the older files beside it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{ErrorKind, Locate, Result};
use crate::format::access::read_config_if_there;
use crate::format::json;

/// Older descriptions beside a model's config: GPTQ's and ModelOpt's.
pub const SIDE_FILES: [&str; 2] = ["quantize_config.json", "hf_quant_config.json"];

/// Keys of a model's config that describe its quantisation.
pub(super) const KEYS: [&str; 3] = ["quantization", "quantization_config", "compression_config"];

/// The description of a model's quantisation; empty if nothing describes it.
#[derive(Debug, Clone, Default)]
pub struct Config {
    fields: Map<String, Value>,
    method: Option<String>,
}

/// Weights of a group of compressed-tensors.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    fields: &'a Map<String, Value>,
    /// The format's name, the group's own or the model's.
    pub format: Option<&'a str>,
}

impl Config {
    /// The configs in a model's directory.
    ///
    /// # Errors
    /// If one of them cannot be read or is no JSON.
    pub fn read(directory: &Path) -> Result<Self> {
        let file = |name: &str| -> Result<Option<Map<String, Value>>> {
            let path = directory.join(name);
            let Some(text) = read_config_if_there(&path).in_file(&path)? else { return Ok(None) };
            let bad = |error: serde_json::Error| ErrorKind::BadConfig { reason: error.to_string() };
            json::object(&text).map(Some).map_err(bad).in_file(&path)
        };
        let model = json::model_config(directory)?;
        if let Some(config) = model.as_ref().and_then(Self::of_model) {
            return Ok(config);
        }
        let [gptq, modelopt] = SIDE_FILES;
        if let Some(fields) = file(gptq)? {
            return Ok(Self::new(fields, "gptq"));
        }
        Ok(match file(modelopt)?.as_ref().and_then(|file| file.get("quantization")) {
            Some(Value::Object(fields)) => Self::new(fields.clone(), "modelopt"),
            _ => Self::default(),
        })
    }

    /// Takes what says that a model is quantised out of its `config.json`; whether anything did.
    pub fn remove_from(config: &mut Map<String, Value>) -> bool {
        let text = config.get_mut("text_config").and_then(Value::as_object_mut);
        let nested = text
            .is_some_and(|text| KEYS.map(|key| text.shift_remove(key)).iter().any(Option::is_some));
        KEYS.map(|key| config.shift_remove(key)).iter().any(Option::is_some) || nested
    }

    /// What a `config.json` says; `None`, if it does not say that the model is quantised.
    pub fn of_model(config: &Map<String, Value>) -> Option<Self> {
        let object = |config: &Map<String, Value>, key: &str| {
            config.get(key).and_then(Value::as_object).filter(|fields| !fields.is_empty()).cloned()
        };
        let text = config.get("text_config").and_then(Value::as_object);
        let places = std::iter::once(config).chain(text);
        for config in places {
            // MLX writes two, alike; the key without a method is its own.
            for (key, method) in KEYS.into_iter().zip(["mlx", "unnamed", "unnamed"]) {
                if let Some(fields) = object(config, key) {
                    return Some(Self::new(fields, method));
                }
            }
        }
        None
    }

    fn new(fields: Map<String, Value>, otherwise: &str) -> Self {
        let named = fields.get("quant_method").and_then(Value::as_str);
        let method = Some(named.unwrap_or(otherwise).to_owned());
        Self { fields, method }
    }

    /// `quant_method`, where anything says that the model is quantised.
    pub fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    /// A field.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key)
    }

    /// A field that is a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// A field that is a positive number.
    pub fn number(&self, key: &str) -> Option<usize> {
        positive(self.get(key))
    }

    /// Rows and columns of the blocks that share a scale.
    pub fn block(&self, module: &str) -> Option<(usize, usize)> {
        let group = || self.group(module).and_then(|group| pair(group.get("block_structure")?));
        self.get("weight_block_size").and_then(pair).or_else(group)
    }

    /// The group of compressed-tensors that a module belongs to; `None`, if the config has none or does not
    /// say which.
    pub fn group(&self, module: &str) -> Option<Group<'_>> {
        if self.method() != Some("compressed-tensors") {
            return None;
        }
        let groups = self.get("config_groups")?.as_object()?;
        let targets = |group: &Value| -> Vec<String> {
            let names = group.get("targets").and_then(Value::as_array);
            names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let named = |target: &String| match target.strip_prefix("re:") {
            Some(pattern) => {
                regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(module))
            }
            None => target == module,
        };
        let found = groups
            .values()
            .find(|group| targets(group).iter().any(named))
            .or_else(|| groups.values().find(|group| targets(group).iter().any(|t| t == "Linear")))
            .or_else(|| groups.values().next().filter(|_| groups.len() == 1))?;
        let format = found.get("format").and_then(Value::as_str).or_else(|| self.text("format"));
        Some(Group { fields: found.get("weights")?.as_object()?, format })
    }

    /// MLX's settings of a module: its own, or the model's.
    pub fn mlx(&self, module: &str, key: &str) -> Option<usize> {
        let of_module = self.get(module).and_then(|settings| positive(settings.get(key)));
        of_module.or_else(|| self.number(key))
    }
}

impl<'a> Group<'a> {
    /// A field of the weights' description.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key)
    }

    /// A field that is a text.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key)?.as_str()
    }

    /// A field that is a positive number.
    pub fn number(&self, key: &str) -> Option<usize> {
        positive(self.get(key))
    }
}

fn positive(value: Option<&Value>) -> Option<usize> {
    let number = usize::try_from(value?.as_u64()?).ok()?;
    (number > 0).then_some(number)
}

fn pair(value: &Value) -> Option<(usize, usize)> {
    match value.as_array()?.as_slice() {
        [rows, columns] => Some((positive(Some(rows))?, positive(Some(columns))?)),
        _ => None,
    }
}
