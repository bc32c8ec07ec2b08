//! PEFT's `adapter_config.json` for the modules that are written.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::adapter::key::Part;
use crate::adapter::module::Replaces;
use crate::adapter::new_adapter::NewAdapter;
use crate::adapter::sidecar::PeftConfig;
use crate::error::{ErrorKind, Locate, Result};

/// The config of an adapter; `places` has the modules that are parameters.
///
/// # Errors
/// A pattern that hits another module too.
pub(super) fn config(adapter: &NewAdapter, places: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut config = adapter.config.clone().unwrap_or_else(default_config);
    let names: Vec<&str> = adapter.modules.iter().map(|module| module.name.as_str()).collect();
    let ranks: Vec<Value> = adapter.modules.iter().map(|m| m.rank.into()).collect();
    let alphas: Vec<Value> = adapter.modules.iter().map(|m| alpha_number(m.alpha())).collect();
    let (rank, rank_pattern) = pattern(&names, &ranks);
    let (alpha, alpha_pattern) = pattern(&names, &alphas);
    let listed = names.iter().filter(|name| !places.contains_key(**name));
    let listed = listed.map(|name| (*name).to_owned()).collect();
    let parameters: Vec<&String> = places.keys().collect();
    let targets = adapter.target_modules.clone().unwrap_or(listed);
    let saved = |kind: fn(&Replaces) -> bool| {
        let found = adapter.replacements.iter().filter(|r| kind(&r.replaces));
        let mut names: Vec<String> = found.map(|r| r.module.clone()).collect();
        names.sort();
        names.dedup();
        names
    };
    let weights = saved(|replaces| *replaces == Replaces::Weight);
    let biases = saved(|replaces| *replaces == Replaces::Bias);
    let rows: BTreeMap<&str, &Vec<usize>> = adapter
        .replacements
        .iter()
        .filter_map(|r| match &r.replaces {
            Replaces::Rows(rows) => Some((r.module.as_str(), rows)),
            _ => None,
        })
        .collect();
    let bias_only = biases.iter().filter(|name| !weights.contains(name)).count() > 0;
    let keep_bias = config.get("bias").and_then(Value::as_str).unwrap_or("none").to_owned();
    let bias = match (bias_only, keep_bias.as_str()) {
        (false, _) => "none",
        (true, "lora_only") => "lora_only",
        (true, _) => "all",
    };
    for (field, value) in [
        ("peft_type", json!("LORA")),
        ("r", rank),
        ("lora_alpha", alpha),
        ("rank_pattern", rank_pattern),
        ("alpha_pattern", alpha_pattern),
        ("use_rslora", json!(false)),
        ("use_dora", json!(adapter.modules.iter().any(|module| module.has(Part::Magnitude)))),
        ("lora_bias", json!(adapter.modules.iter().any(|module| module.has(Part::UpBias)))),
        ("bias", json!(bias)),
        ("target_modules", json!(targets)),
        ("target_parameters", if places.is_empty() { Value::Null } else { json!(parameters) }),
        ("modules_to_save", if weights.is_empty() { Value::Null } else { json!(weights) }),
        ("trainable_token_indices", if rows.is_empty() { Value::Null } else { json!(rows) }),
        ("init_lora_weights", json!(true)),
        ("inference_mode", json!(true)),
        ("layers_to_transform", Value::Null),
        ("layers_pattern", Value::Null),
        ("loftq_config", json!({})),
    ] {
        config.insert(field.to_owned(), value);
    }
    if adapter.target_modules.is_none() && config.contains_key("exclude_modules") {
        // PEFT lets exclusions win over full names too.
        config.insert("exclude_modules".to_owned(), Value::Null);
    }
    if config.contains_key("use_bdlora") {
        // Factors are written whole.
        config.insert("use_bdlora".to_owned(), Value::Null);
    }
    if !places.is_empty() && adapter.stacks.values().all(|stack| !stack.crossed) {
        // Only the version says so of matrices as wide as they are high.
        let old = config.get("peft_version").and_then(Value::as_str).is_none_or(is_before_sides);
        if old {
            config.insert("peft_version".to_owned(), json!(SIDES));
        }
    }
    check(adapter, &config)?;
    text(&config)
}

/// The release from which A of a stack is on the side of the inputs (PEFT's pull request 3083).
const SIDES: &str = "0.19.0";

fn is_before_sides(version: &str) -> bool {
    let minor = version.strip_prefix("0.").and_then(|rest| rest.split('.').next());
    minor.and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor < 19)
}

/// Reads the config back as PEFT would, and fails if a pattern hits another module too.
fn check(adapter: &NewAdapter, config: &Map<String, Value>) -> Result<()> {
    let text = serde_json::to_vec(config)
        .map_err(|error| ErrorKind::BadConfig { reason: error.to_string() })?;
    // Fields that nobody knows are an input's own, and were accepted when it was opened.
    let accepted: Vec<String> = config.keys().cloned().collect();
    let read = PeftConfig::parse(&text, &accepted, true)?;
    for module in &adapter.modules {
        let expected = module.rank;
        let found = read.rank_of(&module.name);
        if let Some(found) = found.filter(|found| *found != expected) {
            return Err(ErrorKind::RankConfig { expected: found, found: expected })
                .in_tensor(&module.name);
        }
    }
    Ok(())
}

/// A config as it stands in its file.
pub(crate) fn text(config: &Map<String, Value>) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(config)
        .map_err(|error| ErrorKind::BadConfig { reason: error.to_string() })?;
    text.push(b'\n');
    Ok(text)
}

/// Whole numbers as integers, as configs have them.
pub(super) fn alpha_number(value: f64) -> Value {
    let whole = value.round();
    // Factors are f32: an alpha that is whole to f32's precision was whole.
    if (value - whole).abs() <= whole.abs() * 1e-9 && whole.abs() < 1e15 {
        return json!(whole as i64);
    }
    json!(value)
}

/// The commonest value, and a pattern of full names for the others. Longer names come first, since
/// PEFT takes the first pattern that ends a module's path; names that end others are anchored.
pub(super) fn pattern(names: &[&str], values: &[Value]) -> (Value, Value) {
    let mut counts: Vec<(&Value, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    // The first of the commonest, so that the choice does not depend on anything else.
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let common = counts.iter().find(|(_, count)| *count == most).map(|(value, _)| (*value).clone());
    let common = common.unwrap_or_else(|| json!(1));
    let mut others: Vec<(&str, &Value)> =
        names.iter().copied().zip(values).filter(|(_, value)| **value != common).collect();
    others.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.0.cmp(b.0)));
    let mut patterns = Map::new();
    for (name, value) in others {
        let ends_another = names.iter().any(|longer| longer.ends_with(&format!(".{name}")));
        let key = if ends_another { format!("^{name}") } else { name.to_owned() };
        patterns.insert(key, value.clone());
    }
    (common, Value::Object(patterns))
}

/// A config of nothing, for adapters that had none.
fn default_config() -> Map<String, Value> {
    let config = json!({
        "peft_type": "LORA", "base_model_name_or_path": null, "task_type": null, "bias": "none",
        "fan_in_fan_out": false, "lora_dropout": 0.0, "inference_mode": true,
    });
    match config {
        Value::Object(config) => config,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_hit_only_their_module() {
        let names = ["a.q", "b.a.q", "c.q"];
        let (common, patterns) = pattern(&names, &[json!(2), json!(4), json!(4)]);
        assert_eq!(common, json!(4));
        assert_eq!(patterns, json!({"^a.q": 2}));
        assert_eq!(pattern(&names, &[json!(1), json!(1), json!(1)]), (json!(1), json!({})));
    }

    #[test]
    fn alphas_are_written_as_they_are_read() {
        assert_eq!(alpha_number(16.0), json!(16));
        assert_eq!(alpha_number(2.5), json!(2.5));
        assert_eq!(alpha_number(16.000_000_000_001), json!(16));
    }
}
