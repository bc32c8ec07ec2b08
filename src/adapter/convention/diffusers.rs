//! diffusers' `pytorch_lora_weights.safetensors`: `unet.<path>.lora_A.weight`, one file for all
//! components of a pipeline (diffusers `loaders/lora_base.py`), and the older spellings of
//! `utils/state_dict_utils.py`: attention processors (`attn1.processor.to_q_lora.down.weight`) and
//! `lora_linear_layer`. The oldest files have a U-Net's processors alone, and name no component.
//!
//! Scales are in the header's `lora_adapter_metadata`; without it they are 1.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::definition::{Convention, Holds, Hooks, Names, ScalePlace};
use super::opened::{Config, Opened, ReadOptions};
use super::peft_config::{alpha_number, pattern};
use super::suffix;
use crate::adapter::key::{Key, MissingAlpha, Part, split_component};
use crate::adapter::new_adapter::{Described, Output};
use crate::adapter::sidecar::PeftConfig;
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::{Metadata, json as bounded};

pub(super) static CONVENTION: Convention = Convention {
    name: "diffusers",
    summary: "single file, a component and a dotted path, scales in the header",
    missing_alpha: MissingAlpha::One,
    scale: ScalePlace::Patterns,
    names: Names::Component,
    output: Output::File("safetensors"),
    holds: Holds { replacements: false, families: None },
    parse,
    format,
    recognises,
    hooks: Hooks {
        header_entry: Some(ENTRY),
        // Alphas beside its names are kohya's way to say scales.
        disowns: |key| key.ends_with(".alpha"),
        open_sidecar,
        entries: &[ENTRY],
        describe,
        ..Hooks::PLAIN
    },
};

/// The header entry with diffusers' scales (diffusers `loaders/lora_base.py`): PEFT's config fields,
/// each after its component and a dot.
const ENTRY: &str = "lora_adapter_metadata";

/// Norms that its loaders put in the place of a transformer's own (diffusers `loaders/lora_pipeline.py`,
/// `_control_lora_supported_norm_keys`).
const NORMS: [&str; 4] = [".norm_q", ".norm_k", ".norm_added_q", ".norm_added_k"];

fn is_norm(module: &str) -> bool {
    module.starts_with("transformer.") && NORMS.iter().any(|norm| module.ends_with(norm))
}

/// Whether a name is of the oldest files, which begin with a block of the U-Net.
fn is_oldest(key: &str) -> bool {
    const BLOCKS: [&str; 3] = ["down_blocks.", "mid_block.", "up_blocks."];
    BLOCKS.iter().any(|block| key.starts_with(block)) && key.contains(".processor.")
}

fn parse(key: &str) -> Option<Key> {
    if let Some(module) = key.strip_suffix(".weight").filter(|module| is_norm(module)) {
        return Some(Key { module: module.to_owned(), part: Part::Weight });
    }
    let (module, part) = suffix::split(key)?;
    Some(Key { module: modern(module), part })
}

/// What older files call the projections of text encoders.
const ENCODER: [(&str, &str); 4] =
    [("to_q", "q_proj"), ("to_k", "k_proj"), ("to_v", "v_proj"), ("to_out", "out_proj")];

/// A module's name as diffusers has it now; a name that begins with no component of a pipeline as it is.
pub(super) fn modern(module: &str) -> String {
    let mut module = match is_oldest(module) {
        true => format!("unet.{module}"),
        false => module.to_owned(),
    };
    while let Some(newer) = split_component(&module).and_then(|_| newer(&module)) {
        module = newer;
    }
    module
}

/// Attention processors are no modules of the model: `attn1.processor.to_out` is `attn1.to_out.0`.
fn newer(module: &str) -> Option<String> {
    if module.starts_with("text_encoder")
        && let Some((attention, name)) = module.rsplit_once(".self_attn.")
        && let Some((_, current)) = ENCODER.iter().find(|(old, _)| *old == name)
    {
        return Some(format!("{attention}.self_attn.{current}"));
    }
    let (attention, name) = module.rsplit_once(".processor.")?;
    let name = if name == "to_out" { "to_out.0" } else { name };
    Some(format!("{attention}.{name}"))
}

fn format(key: &Key) -> Option<String> {
    let ending = match key.part {
        Part::Down => "lora_A.weight",
        Part::Up => "lora_B.weight",
        Part::UpBias => "lora_B.bias",
        Part::Magnitude => "lora_magnitude_vector",
        Part::Weight if is_norm(&key.module) => "weight",
        _ => return None,
    };
    Some(format!("{}.{ending}", key.module))
}

fn recognises(key: &str) -> bool {
    let factor = suffix::split(key).is_some_and(|(_, part)| matches!(part, Part::Down | Part::Up));
    let Some((_, path)) = split_component(key) else { return factor && is_oldest(key) };
    // GPT-2's own root is `transformer` too.
    factor && !path.starts_with("h.") && !path.starts_with("wte")
}

/// Reads the configs that the header has for a pipeline's components.
fn open_sidecar(
    mut opened: Opened,
    _: Option<Config<'_>>,
    options: &ReadOptions<'_>,
) -> Result<Opened> {
    let header = opened.file.shards.first().and_then(|shard| shard.header.metadata.as_ref());
    if let Some(text) = header.and_then(|header: &Metadata| header.get(ENTRY)) {
        opened.components = components(text, options).in_file(&opened.file.path)?;
    }
    Ok(opened)
}

/// The configs of a pipeline's components, each as PEFT would write it.
fn components(text: &str, options: &ReadOptions<'_>) -> Result<Vec<(String, PeftConfig)>> {
    let bad = |reason: String| {
        let reason = format!("the header's `{ENTRY}`: {reason}");
        Error::from(ErrorKind::BadConfig { reason })
    };
    let document: Map<String, Value> =
        bounded::object(text.as_bytes()).map_err(|error| bad(error.to_string()))?;
    let mut configs: Vec<(String, Map<String, Value>)> = Vec::new();
    for (key, value) in document {
        let (component, field) =
            split_component(&key).ok_or_else(|| bad(format!("`{key}` belongs to no component")))?;
        let at = configs.iter().position(|(known, _)| known == component);
        let fields = match at.and_then(|at| configs.get_mut(at)) {
            Some((_, fields)) => fields,
            None => {
                let peft_type = ("peft_type".to_owned(), Value::from("LORA"));
                configs.push((component.to_owned(), Map::from_iter([peft_type])));
                let Some((_, fields)) = configs.last_mut() else { continue };
                fields
            }
        };
        fields.insert(field.to_owned(), value);
    }
    let parse = |(component, fields): (String, Map<String, Value>)| {
        let text = serde_json::to_vec(&fields).map_err(|error| bad(error.to_string()))?;
        let config = PeftConfig::parse(&text, options.ignored_fields, options.residual_base)?;
        if !config.target_parameters.is_empty() {
            let reason =
                "its factors are of stacks of experts, which are read from PEFT's directories \
                with an adapter_config.json alone"
                    .to_owned();
            let field = format!("{component}.target_parameters");
            return Err(ErrorKind::UnsupportedField { field, reason }.into());
        }
        Ok((component, config))
    };
    configs.into_iter().map(parse).collect()
}

/// diffusers' entry: PEFT's fields after each component's name, indented and sorted as its own writer
/// does (diffusers `loaders/lora_base.py`, `write_lora_layers`).
fn describe(modules: &[Described<'_>], metadata: &mut Metadata) -> Result<()> {
    metadata.shift_remove(ENTRY);
    let mut components: BTreeMap<&str, Vec<(&str, Described<'_>)>> = BTreeMap::new();
    for module in modules {
        let (component, path) = split_component(module.name)
            .ok_or_else(|| ErrorKind::BadOption("its name begins with no component".to_owned()))
            .in_tensor(module.name)?;
        components.entry(component).or_default().push((path, *module));
    }
    let mut fields = BTreeMap::new();
    for (component, modules) in components {
        let names: Vec<&str> = modules.iter().map(|(path, _)| *path).collect();
        let ranks: Vec<Value> = modules.iter().map(|(_, m)| m.rank.into()).collect();
        let alphas: Vec<Value> = modules.iter().map(|(_, m)| alpha_number(m.alpha)).collect();
        let (rank, rank_pattern) = pattern(&names, &ranks);
        let (alpha, alpha_pattern) = pattern(&names, &alphas);
        for (field, value) in [
            ("r", rank),
            ("lora_alpha", alpha),
            ("rank_pattern", rank_pattern),
            ("alpha_pattern", alpha_pattern),
            ("target_modules", json!(names)),
            ("use_dora", json!(modules.iter().any(|(_, module)| module.dora))),
            ("lora_bias", json!(modules.iter().any(|(_, module)| module.bias))),
        ] {
            fields.insert(format!("{component}.{field}"), value);
        }
    }
    let text = serde_json::to_string_pretty(&fields)
        .map_err(|error| ErrorKind::BadConfig { reason: error.to_string() })?;
    metadata.insert(ENTRY.to_owned(), text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::adapter::key::COMPONENTS;

    #[test]
    fn older_spellings_are_understood() {
        let q = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
        let out = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0";
        let root = "unet.mid_block.attentions.0.transformer_blocks.0.attn1";
        for (spelled, module) in [
            (format!("{root}.processor.to_q_lora.down.weight"), q),
            (format!("{root}.to_q.lora.down.weight"), q),
            (format!("{root}.to_q.lora_A.weight"), q),
            (format!("{root}.to_q.lora_linear_layer.down.weight"), q),
            (format!("{root}.processor.to_out_lora.down.weight"), out),
            (
                "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight".into(),
                "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
            ),
        ] {
            let key = Key { module: module.to_owned(), part: Part::Down };
            assert_eq!(parse(&spelled), Some(key), "{spelled}");
            assert!(recognises(&spelled), "{spelled}");
            if let Some(oldest) = spelled.strip_prefix("unet.").filter(|name| is_oldest(name)) {
                assert_eq!(parse(oldest), parse(&spelled), "{oldest}");
                assert!(recognises(oldest), "{oldest}");
            }
        }
        let norm = Key { module: "transformer.a.attn.norm_q".into(), part: Part::Weight };
        assert_eq!(format(&norm).and_then(|key| parse(&key)), Some(norm));
        assert!(!recognises("transformer.h.0.attn.c_attn.lora_A.weight"));
        assert!(!recognises("unet.conv_in.weight"));
    }

    proptest! {
        #[test]
        fn parse_undoes_format(
            component in 0usize..COMPONENTS.len(),
            path in prop::collection::vec("[a-z][a-z0-9_]{1,8}|[0-9]{1,2}", 1..6),
            index in 0usize..4,
        ) {
            prop_assume!(!path.iter().any(|part| part == "processor"));
            let part = [Part::Down, Part::Up, Part::UpBias, Part::Magnitude][index];
            let key = Key { module: format!("{}.{}", COMPONENTS[component], path.join(".")), part };
            let text = format(&key).expect("spelled");
            prop_assert_eq!(parse(&text), Some(key));
        }

        #[test]
        fn no_key_panics(text in "\\PC{0,40}|([a-z_.]|lora_A|unet|processor|\\.){0,12}") {
            let _ = (parse(&text), recognises(&text));
        }
    }
}
