//! What other conventions than PEFT's keep beside tensors: kohya's summary and hashes, diffusers' entry
//! of the header, mlx-lm's config, llama.cpp's pairs; and their tensors' orientation.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::NewModule;
use super::peft::{alpha_number, pattern};
use crate::adapter::convention::{self, Convention, Names, Part, ScalePlace};
use crate::adapter::files::DIFFUSERS_ENTRY;
use crate::adapter::gguf::{ADAPTER_TYPE, ALPHA, TYPE};
use crate::adapter::hashes::{Hashes, MODEL_HASH};
use crate::adapter::mlx::{stack_of, transposed};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Metadata, Tensor};

/// The header's entries that describe the modules, kept true; room for the hashes of the file.
/// `written` is rank and alpha of each module.
pub(super) fn describe(
    convention: &Convention,
    written: impl Iterator<Item = (usize, f64)>,
    metadata: &mut Metadata,
) {
    if convention.scale != ScalePlace::Tensor {
        for stale in ["ss_network_dim", "ss_network_alpha", MODEL_HASH, "sshs_legacy_hash"] {
            metadata.shift_remove(stale);
        }
        return;
    }
    let uniform = |values: Vec<String>| {
        let first = values.first().cloned().unwrap_or_default();
        if values.iter().all(|value| *value == first) { first } else { "Dynamic".to_owned() }
    };
    let (ranks, alphas) =
        written.map(|(rank, alpha)| (rank.to_string(), format!("{alpha:?}"))).unzip();
    metadata.insert("ss_network_dim".to_owned(), uniform(ranks));
    metadata.insert("ss_network_alpha".to_owned(), uniform(alphas));
    metadata.shift_remove("modelspec.hash_sha256");
    // Of the right length for a size that is asked before the tensors exist.
    let (model, legacy) = ("0".repeat(64), Some("0".repeat(8)));
    Hashes { model, legacy }.insert(metadata);
}

/// Hashes the tensors where the header has room for it.
pub(super) fn hash(tensors: &[Tensor], metadata: &mut Metadata) -> Result<()> {
    if !metadata.contains_key(MODEL_HASH) {
        return Ok(());
    }
    let specs = tensors.iter().map(|(name, dtype, shape, _)| (name.clone(), *dtype, shape.clone()));
    let hashes = Hashes::of(specs, metadata, |take| {
        for (_, _, _, bytes) in tensors {
            take(bytes);
        }
        Ok(())
    })?;
    hashes.insert(metadata);
    Ok(())
}

/// What a header says of a module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described<'a> {
    pub(super) name: &'a str,
    pub(super) rank: usize,
    pub(super) alpha: f64,
    pub(super) dora: bool,
    pub(super) bias: bool,
}

impl<'a> From<&'a NewModule> for Described<'a> {
    fn from(module: &'a NewModule) -> Self {
        let (rank, alpha) = (module.rank, module.alpha());
        let (dora, bias) = (module.has(Part::Magnitude), module.has(Part::UpBias));
        Self { name: &module.name, rank, alpha, dora, bias }
    }
}

/// diffusers' entry: PEFT's fields after each component's name, indented and sorted as its own writer
/// does (diffusers `loaders/lora_base.py`, `write_lora_layers`).
pub(super) fn describe_components(
    modules: &[Described<'_>],
    metadata: &mut Metadata,
) -> Result<()> {
    let mut components: BTreeMap<&str, Vec<(&str, Described<'_>)>> = BTreeMap::new();
    for module in modules {
        let (component, path) = convention::split_component(module.name)
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
    metadata.insert(DIFFUSERS_ENTRY.to_owned(), text);
    Ok(())
}

/// The one number all modules have, where they have one.
fn shared(values: impl Iterator<Item = f64>, what: &str) -> Result<f64> {
    let values: Vec<f64> = values.collect();
    let first = values.first().copied().unwrap_or(1.0);
    if values.iter().all(|value| (value - first).abs() <= first.abs() * 1e-12) {
        return Ok(first);
    }
    let reason = format!("the convention has one {what} for all modules, and these differ");
    Err(ErrorKind::BadOption(reason).into())
}

/// mlx-lm's config (mlx-lm `tuner/utils.py`, `load_adapters`).
pub(super) fn mlx_config(modules: &[NewModule]) -> Result<Vec<u8>> {
    let scale = shared(modules.iter().map(|module| module.scale), "scale")?;
    let dora = modules.iter().any(|module| module.has(Part::Magnitude));
    let rank = modules.iter().map(|module| module.rank).max().unwrap_or(1);
    let layer = |name: &str| name.split('.').find_map(|part| part.parse::<usize>().ok());
    let layers = modules.iter().filter_map(|module| layer(&module.name)).max();
    // As mlx-lm looks modules up: below a layer by the path after its number.
    let key = |name: &str| {
        let stack = stack_of(name).map(|(stack, _)| stack);
        let name = stack.as_deref().unwrap_or(name);
        let parts: Vec<&str> = name.split('.').collect();
        let number = parts.iter().position(|part| part.parse::<usize>().is_ok());
        number.map(|at| parts.get(at + 1..).unwrap_or_default().join("."))
    };
    let keys: std::collections::BTreeSet<String> =
        modules.iter().filter_map(|module| key(&module.name)).collect();
    let config = json!({
        "fine_tune_type": if dora { "dora" } else { "lora" },
        "num_layers": layers.map_or(0, |last| last + 1),
        "lora_parameters": {
            "rank": rank, "scale": scale, "dropout": 0.0, "keys": keys,
        },
    });
    let mut text = serde_json::to_vec_pretty(&config)
        .map_err(|error| ErrorKind::BadConfig { reason: error.to_string() })?;
    text.push(b'\n');
    Ok(text)
}

/// llama.cpp's pairs; `general.architecture` is the caller's.
pub(super) fn describe_gguf(modules: &[NewModule], metadata: &mut Metadata) -> Result<()> {
    let alpha = match shared(modules.iter().map(NewModule::alpha), "alpha") {
        Ok(alpha) => alpha,
        // No alpha means scale 1, whatever the ranks.
        Err(_) if modules.iter().all(|module| module.scale == 1.0) => 0.0,
        Err(error) => return Err(error),
    };
    metadata.retain(|key, _| key.starts_with("general."));
    for (key, value) in [TYPE, ADAPTER_TYPE] {
        metadata.insert(key.to_owned(), value.to_owned());
    }
    metadata.insert(ALPHA.to_owned(), alpha.to_string());
    Ok(())
}

/// Turns factors to the orientation that the convention stores.
pub(super) fn orient(convention: &Convention, part: Part, tensor: Tensor) -> Tensor {
    let expert = || tensor.0.rsplit_once('.').is_some_and(|(module, _)| stack_of(module).is_some());
    let mlx = convention.name == convention::mlx().name && part != Part::Magnitude && !expert();
    let table = convention.names == Names::Gguf && part == Part::EmbeddingDown;
    let (name, dtype, shape, bytes) = tensor;
    match shape.as_slice() {
        [rows, columns] if mlx || table => {
            let bytes = transposed(&bytes, *rows, *columns);
            (name, dtype, vec![*columns, *rows], bytes)
        }
        _ => (name, dtype, shape, bytes),
    }
}

/// A config of nothing, for adapters that had none.
pub(super) fn default_config() -> Map<String, Value> {
    let config = json!({
        "peft_type": "LORA", "base_model_name_or_path": null, "task_type": null, "bias": "none",
        "fan_in_fan_out": false, "lora_dropout": 0.0, "inference_mode": true,
    });
    match config {
        Value::Object(config) => config,
        _ => Map::new(),
    }
}
