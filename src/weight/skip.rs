//! Weights that become plain numbers beside others that stay quantised: which have to go together, and how a model's
//! configs say so, each in its loader's own spelling.

use serde_json::{Map, Value, json};

use super::Config;
use super::model::COMFY_METADATA;
use crate::format::Metadata;

/// Modules of one parent that programs load as one (vLLM's merged linears): all are quantised, or none.
const FUSED: [&[&str]; 7] = [
    &["q_proj", "k_proj", "v_proj"],
    &["gate_proj", "up_proj"],
    &["w1", "w3"],
    &["q_a_proj", "kv_a_proj_with_mqa"],
    &["in_proj_qkvz", "in_proj_ba"],
    &["in_proj_qkv", "in_proj_z"],
    &["query", "key", "value"],
];

/// What names of weights have in common that are loaded as one: a layer's experts, or modules of a parent.
pub fn fused(weight: &str) -> String {
    if let Some((layer, _)) = weight.split_once(".experts.") {
        return format!("{layer}.experts");
    }
    let module = weight.strip_suffix(".weight").unwrap_or(weight);
    let (parent, name) = module.rsplit_once('.').unwrap_or(("", module));
    match FUSED.iter().position(|group| group.contains(&name)) {
        Some(group) => format!("{parent}/{group}"),
        None => weight.to_owned(),
    }
}

/// A header's metadata without what ComfyUI says of layers that are no longer quantised.
pub fn metadata_without(mut metadata: Metadata, modules: &[String]) -> Metadata {
    let text = metadata.get(COMFY_METADATA).filter(|_| !modules.is_empty());
    let parsed: Option<Value> = text.and_then(|text| serde_json::from_str(text).ok());
    if let Some(mut parsed) = parsed {
        if let Some(layers) = parsed.get_mut("layers").and_then(Value::as_object_mut) {
            layers.retain(|layer, _| !modules.iter().any(|module| names_layer(layer, module)));
        }
        metadata.insert(COMFY_METADATA.to_owned(), parsed.to_string());
    }
    metadata
}

/// Whether ComfyUI's name of a layer is of a module: the prefix of a denoiser may be missing.
pub(super) fn names_layer(layer: &str, module: &str) -> bool {
    module == layer || module.strip_prefix("model.diffusion_model.") == Some(layer)
}

impl Config {
    /// Puts modules that are no longer quantised into a `config.json`.
    pub fn skip(config: &mut Map<String, Value>, modules: &[String]) {
        if modules.is_empty() {
            return;
        }
        let is_described = |config: &Map<String, Value>| {
            super::config::KEYS.iter().any(|key| config.get(*key).is_some_and(Value::is_object))
        };
        let nested = config.get("text_config").and_then(Value::as_object).is_some_and(is_described);
        let place = match config.get_mut("text_config").filter(|_| nested) {
            Some(Value::Object(text)) => text,
            _ => config,
        };
        for key in super::config::KEYS {
            let Some(Value::Object(fields)) = place.get_mut(key) else { continue };
            let method = fields.get("quant_method").and_then(Value::as_str);
            // MLX writes two descriptions, alike, without a method.
            let method = method.unwrap_or("mlx").to_owned();
            skip_in(fields, &method, modules);
        }
    }

    /// What a user should know of a loader that reads such a description, but not the list in it that [`Config::skip`]
    /// writes.
    pub fn unread_skips(config: &Map<String, Value>) -> Option<&'static str> {
        let found = Self::of_model(config)?;
        // vLLM's `Mxfp4Config.from_config` drops the list.
        (found.method() == Some("mxfp4")).then_some(
            "experts that change are 16-bit now, as modules_to_not_convert says: transformers reads that, vLLM takes \
             all experts for MXFP4; for it use --quantized 16bit or requantize",
        )
    }

    /// The same in an older file beside it: GPTQ's, or ModelOpt's, which has its fields one level down.
    pub fn skip_beside(file: &mut Map<String, Value>, modules: &[String]) {
        match file.get_mut("quantization") {
            Some(Value::Object(fields)) => skip_in(fields, "modelopt", modules),
            _ => skip_in(file, "gptq", modules),
        }
    }
}

/// Names modules as not quantised in a description of this method.
fn skip_in(fields: &mut Map<String, Value>, method: &str, modules: &[String]) {
    match method {
        // Newer loaders read one, older ones the other.
        "fp8" | "fbgemm_fp8" => {
            add(fields, "modules_to_not_convert", modules);
            add(fields, "ignored_layers", modules);
        }
        "mxfp4" => {
            let experts = modules.iter().map(|module| match module.split_once(".experts") {
                Some((layer, _)) => format!("{layer}.experts"),
                None => module.clone(),
            });
            add(fields, "modules_to_not_convert", &experts.collect::<Vec<_>>());
        }
        "awq" => add(fields, "modules_to_not_convert", modules),
        "bitsandbytes" => {
            // A list of one's own ends transformers' own choice, which is the head.
            if fields.get("llm_int8_skip_modules").is_none_or(Value::is_null) {
                add(fields, "llm_int8_skip_modules", &["lm_head".to_owned()]);
            }
            add(fields, "llm_int8_skip_modules", modules);
        }
        "compressed-tensors" => add(fields, "ignore", modules),
        "modelopt" | "modelopt_fp4" => {
            let key =
                if fields.contains_key("exclude_modules") { "exclude_modules" } else { "ignore" };
            add(fields, key, modules);
        }
        "gptq" => {
            let rules = fields.entry("dynamic").or_insert_with(|| json!({}));
            if !rules.is_object() {
                *rules = json!({});
            }
            for module in modules {
                rules[format!("-:^{}$", regex::escape(module))] = json!({});
            }
        }
        "mlx" => {
            for module in modules {
                fields.insert(module.clone(), false.into());
            }
        }
        _ => {}
    }
}

/// Adds names to a list, which is made if it is not there.
fn add(fields: &mut Map<String, Value>, key: &str, names: &[String]) {
    let mut list = match fields.get(key) {
        Some(Value::Array(list)) => list.clone(),
        _ => Vec::new(),
    };
    for name in names {
        if !list.iter().any(|entry| entry == name.as_str()) {
            list.push(name.as_str().into());
        }
    }
    fields.insert(key.to_owned(), list.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_loaded_as_one_has_one_name() {
        let alike = |a: &str, b: &str| fused(a) == fused(b);
        assert!(alike("l.0.attn.q_proj.weight", "l.0.attn.v_proj.weight"));
        assert!(alike("l.0.mlp.experts.3.w1.weight", "l.0.mlp.experts.9.w2.weight"));
        assert!(alike("l.0.mlp.experts.down_proj", "l.0.mlp.experts.gate_up_proj"));
        assert!(!alike("l.0.attn.q_proj.weight", "l.1.attn.q_proj.weight"));
        assert!(!alike("l.0.mlp.gate_proj.weight", "l.0.mlp.down_proj.weight"));
    }

    #[test]
    fn a_list_that_a_loader_does_not_read_is_told_of() {
        let unread = |method: &str| {
            let config = json!({"quantization_config": {"quant_method": method}});
            config.as_object().and_then(Config::unread_skips)
        };
        assert!(unread("mxfp4").is_some_and(|text| text.contains("vLLM")));
        assert_eq!(unread("fp8"), None);
    }

    #[test]
    fn a_loader_finds_the_names_where_it_looks() {
        let modules = ["model.layers.0.q_proj".to_owned()];
        let skipped = |fields: Value| {
            let Value::Object(mut config) = json!({ "quantization_config": fields }) else {
                return Value::Null;
            };
            Config::skip(&mut config, &modules);
            config.remove("quantization_config").unwrap_or_default()
        };
        let fp8 = skipped(json!({"quant_method": "fp8", "modules_to_not_convert": ["lm_head"]}));
        assert_eq!(fp8["modules_to_not_convert"], json!(["lm_head", modules[0]]));
        assert_eq!(fp8["ignored_layers"], json!(modules));
        let bnb = skipped(json!({"quant_method": "bitsandbytes"}));
        assert_eq!(bnb["llm_int8_skip_modules"], json!(["lm_head", modules[0]]));
        let gptq = skipped(json!({"quant_method": "gptq"}));
        assert_eq!(gptq["dynamic"], json!({"-:^model\\.layers\\.0\\.q_proj$": {}}));
        assert_eq!(skipped(json!({"bits": 4}))[&modules[0]], json!(false));
    }
}
