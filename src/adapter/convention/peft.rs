//! PEFT's `adapter_model.safetensors`: `base_model.model.<path>.lora_A.weight` and its relatives
//! (peft `utils/save_and_load.py`), with the wrapper prefixes and adapter names that leak into files.

use std::path::Path;

use super::definition::{Convention, Holds, Hooks, Names, ScalePlace};
use super::opened::{Config, Opened, ReadOptions};
use super::{peft_config, peft_stacks, tensors};
use crate::adapter::key::{Key, MissingAlpha, Part, foreign_family};
use crate::adapter::module::Dialect;
use crate::adapter::new_adapter::Output;
use crate::adapter::sidecar::{PeftConfig, is_config};
use crate::error::Result;
use crate::format::Checkpoint;

pub(super) static CONVENTION: Convention = Convention {
    name: "peft",
    summary: "adapter_config.json and adapter_model.safetensors, dotted paths",
    missing_alpha: MissingAlpha::Unknown,
    scale: ScalePlace::Patterns,
    names: Names::Dotted,
    output: Output::Directory("adapter_model.safetensors"),
    holds: Holds { replacements: true, families: Some(Dialect::Peft) },
    parse,
    format,
    recognises,
    hooks: Hooks {
        owns_config: is_config,
        claims,
        open_sidecar,
        pack: Some(peft_stacks::pack),
        write_sidecar: Some(peft_config::config),
        ..Hooks::PLAIN
    },
};

/// Put before every path by PEFT's model wrapper.
const WRAPPER: &str = "base_model.model.";

/// Path parts that wrappers of the training loop leave behind.
const LEAKED: [&str; 3] = ["_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module"];

/// Path parts of PEFT's own nesting, which are no modules of the base.
const NESTING: [&str; 2] = ["base_layer", "token_adapter"];

/// Path parts that stand before a module's whole copies, the adapter's name after them in some files.
const COPIES: [&str; 2] = ["modules_to_save", "ln_tuning_layers"];

fn parse(key: &str) -> Option<Key> {
    let is_of_path = |part: &&str| !LEAKED.contains(part) && !NESTING.contains(part);
    let mut parts: Vec<&str> = key.split('.').filter(is_of_path).collect();
    while let Some(at) = parts.iter().position(|part| COPIES.contains(part)) {
        // `modules_to_save.<adapter name>.weight`, as older writers kept it.
        parts.drain(at..(at + 2).min(parts.len() - 1).max(at + 1));
    }
    let start = wrapper_length(&parts);
    parts.drain(..start);
    if let Some(at) = parts.iter().position(|part| *part == "original_module") {
        return Some(Key { module: parts.get(..at)?.join("."), part: Part::Original });
    }
    part_layer_from_factor(&mut parts);
    let (path, part) = split(&parts)?;
    let module = path.join(".");
    let shared = matches!(part, Part::Named(name) if tensors::SHARED.contains(&name));
    // A module below a factor is none.
    let below = path.iter().any(|part| is_factor(part));
    let known = shared || part == Part::Foreign;
    (known || !module.is_empty() && !below).then_some(Key { module, part })
}

/// Makes `to_q.lora.down` of `to_q_lora.down`, as older writers call the factors of attention processors.
fn part_layer_from_factor(parts: &mut Vec<&str>) {
    let at = match parts.as_slice() {
        [.., "down" | "up"] => parts.len().checked_sub(2),
        [.., "down" | "up", "weight"] | [.., "up", "bias"] => parts.len().checked_sub(3),
        _ => None,
    };
    let Some((at, name)) = at.and_then(|at| Some((at, parts.get_mut(at)?))) else { return };
    if let Some(layer) = name.strip_suffix("_lora").filter(|layer| !layer.is_empty()) {
        *name = layer;
        parts.insert(at + 1, "lora");
    }
}

/// Whether a path's part is what a module's own tensors are called.
fn is_factor(part: &str) -> bool {
    const LOW_RANK: [&str; 9] = [
        "lora_down",
        "lora_up",
        "lora_mid",
        "lora_A",
        "lora_B",
        "lora_embedding_A",
        "lora_embedding_B",
        "lora_magnitude_vector",
        "trainable_tokens_delta",
    ];
    LOW_RANK.contains(&part)
        || tensors::SHARED.contains(&part)
        || tensors::PEFT.iter().any(|(name, _)| name.split('.').next() == Some(part))
}

/// How many leading parts are wrappers: `base_model`, `model` (once, after it), and DDP's `module`.
fn wrapper_length(parts: &[&str]) -> usize {
    let mut start = 0;
    while parts.get(start) == Some(&"module") {
        start += 1;
    }
    if parts.get(start) == Some(&"base_model") {
        start += 1;
        if parts.get(start) == Some(&"model") {
            start += 1;
        }
    }
    while parts.get(start) == Some(&"module") {
        start += 1;
    }
    start
}

fn split<'a>(parts: &'a [&'a str]) -> Option<(&'a [&'a str], Part)> {
    for (at, name) in parts.iter().enumerate() {
        let rest = parts.get(at + 1..)?;
        let part = match *name {
            "lora_A" => factor(rest, Part::Down, None),
            "lora_B" => factor(rest, Part::Up, Some(Part::UpBias)),
            "lora_embedding_A" => named(rest, Part::EmbeddingDown),
            "lora_embedding_B" => named(rest, Part::EmbeddingUp),
            "lora_magnitude_vector" => factor(rest, Part::Magnitude, None),
            // Other writers' endings, which stand behind any prefix.
            "lora_down" if at > 0 => factor(rest, Part::Down, None),
            "lora_up" if at > 0 => factor(rest, Part::Up, Some(Part::UpBias)),
            "lora" | "lora_linear_layer" if at > 0 => match rest {
                ["down"] | ["down", "weight"] => Some(Part::Down),
                ["up"] | ["up", "weight"] => Some(Part::Up),
                ["up", "bias"] => Some(Part::UpBias),
                _ => None,
            },
            "magnitude" if at > 0 && rest.is_empty() => Some(Part::Magnitude),
            "alpha" if at > 0 && rest.is_empty() => Some(Part::Alpha),
            "dora_scale" if at > 0 && rest.is_empty() => Some(Part::Named("dora_scale")),
            "lora_mid" if at > 0 => factor(rest, Part::Named("lora_mid"), None),
            "trainable_tokens_delta" => named(rest, Part::TokenRows),
            // One vector a group of layers; only the first has a name without the others.
            "tinylora_v" if at == 0 && matches!(rest, [group] if *group != "0") => {
                return Some((parts, Part::Foreign));
            }
            name => match nested_part(name, rest).filter(|_| at > 0) {
                Some(part) => Some(part),
                None => named_part(name, at).and_then(|part| factor(rest, part, None)),
            },
        };
        if let Some(part) = part {
            return Some((parts.get(..at)?, part));
        }
    }
    let (last, path) = parts.split_last()?;
    let part = match *last {
        _ if foreign_family(&parts.join(".")).is_some() => Part::Foreign,
        "weight" => Part::Weight,
        "bias" => Part::Bias,
        _ => return None,
    };
    Some((path, part))
}

/// The tensor of another family that is called so; the shared ones stand before any module.
fn named_part(name: &str, at: usize) -> Option<Part> {
    let of_module = tensors::PEFT.iter().find(|(known, _)| *known == name).map(|(known, _)| *known);
    let shared = tensors::SHARED.iter().find(|known| **known == name && at == 0).copied();
    of_module.filter(|_| at > 0).or(shared).map(Part::Named)
}

/// The tensor of another family that has a name of its own in what is called so (`glora_A.Xd`).
fn nested_part(name: &str, rest: &[&str]) -> Option<Part> {
    let ([leaf] | [_, leaf]) = rest else { return None };
    let is_own = |known: &str| known.strip_prefix(name)?.strip_prefix('.').map(|below| below == *leaf);
    let known = tensors::PEFT.iter().find(|(known, _)| is_own(known) == Some(true));
    known.map(|(known, _)| Part::Named(known))
}

/// `weight`, `<adapter>.weight`, nothing, or `<adapter>`; `bias` likewise where there can be one.
fn factor(rest: &[&str], weight: Part, bias: Option<Part>) -> Option<Part> {
    match rest {
        [] | ["weight"] | [_, "weight"] => Some(weight),
        ["bias"] | [_, "bias"] => bias,
        [_] => Some(weight),
        _ => None,
    }
}

/// Nothing, or an adapter's name.
fn named(rest: &[&str], part: Part) -> Option<Part> {
    (rest.len() <= 1).then_some(part)
}

fn format(key: &Key) -> Option<String> {
    if let Part::Named(shared) = key.part
        && key.module.is_empty()
        && tensors::SHARED.contains(&shared)
    {
        // The only one of its vectors that a file can be read with.
        let group = if shared == "tinylora_v" { ".0" } else { "" };
        return Some(format!("base_model.{shared}{group}"));
    }
    let ending = match key.part {
        Part::Down => "lora_A.weight",
        Part::Up => "lora_B.weight",
        Part::UpBias => "lora_B.bias",
        Part::EmbeddingDown => "lora_embedding_A",
        Part::EmbeddingUp => "lora_embedding_B",
        Part::Magnitude => "lora_magnitude_vector",
        Part::TokenRows => "token_adapter.trainable_tokens_delta",
        Part::Weight => "weight",
        Part::Bias => "bias",
        Part::Named(name) => tensors::ending(tensors::PEFT, name)?,
        Part::Alpha | Part::Original | Part::Foreign => return None,
    };
    Some(format!("{WRAPPER}{}.{ending}", key.module))
}

/// A key as PEFT itself writes it for a type other than LoRA: without wrappers of the training loop and
/// adapters' names; with its own nesting, where only that tells the tensor from the base's.
pub(crate) fn respelled(key: &str, peft_type: &str) -> Option<String> {
    let read = parse(key)?;
    let spelled = format(&read)?;
    match read.part {
        // AdaLoRA's factors are parameters, no layers (peft `tuners/adalora/layer.py`).
        Part::Down | Part::Up if peft_type == "ADALORA" => {
            spelled.strip_suffix(".weight").map(str::to_owned)
        }
        // As a type of its own they have no wrapper (peft `tuners/trainable_tokens/layer.py`).
        Part::TokenRows if peft_type == "TRAINABLE_TOKENS" => {
            Some(spelled.replace(".token_adapter.", "."))
        }
        Part::Weight | Part::Bias => {
            let (above, ending) = spelled.rsplit_once('.')?;
            let nested = ["base_layer", "ln_tuning_layers"].map(|nesting| format!(".{nesting}"));
            let nested = nested.into_iter().filter(|nesting| key.contains(&format!("{nesting}.")));
            Some(format!("{above}{}.{ending}", nested.take(1).collect::<String>()))
        }
        _ => Some(spelled),
    }
}

/// Its config stands beside files of kohya's too, whose names are flattened.
#[allow(clippy::unnecessary_wraps, reason = "other conventions read their config for this")]
fn claims(file: &Checkpoint, _: &Path) -> Result<bool> {
    let kohya = file.names().any(|key| key.contains(".lora_down") || key.ends_with(".alpha"));
    let dotted = || file.names().filter_map(parse).all(|key| key.module.contains('.'));
    Ok(!kohya || dotted())
}

fn open_sidecar(
    mut opened: Opened,
    config: Option<Config<'_>>,
    options: &ReadOptions<'_>,
) -> Result<Opened> {
    let (ignored, residual) = (options.ignored_fields, options.residual_base);
    match config {
        Some(Config::File(path)) => {
            opened.config = Some(PeftConfig::open(path, ignored, residual)?);
            opened.config_path = Some(path.to_path_buf());
        }
        Some(Config::Text(text)) => {
            opened.config = Some(PeftConfig::parse(text, ignored, residual)?);
        }
        None => {}
    }
    Ok(opened)
}

fn recognises(key: &str) -> bool {
    key.contains(WRAPPER) || key.starts_with("base_model.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(module: &str, part: Part) -> Option<Key> {
        Some(Key { module: module.into(), part })
    }

    #[test]
    fn what_leaks_is_stripped() {
        let q = "model.layers.0.q_proj";
        for spelled in [
            "base_model.model.model.layers.0.q_proj.lora_A.weight",
            "base_model.model.model.layers.0.q_proj.lora_A.default.weight",
            "module.base_model.model.model.layers.0.q_proj.lora_A.weight",
            "base_model.model._orig_mod.model.layers.0._fsdp_wrapped_module.q_proj.lora_A.weight",
            "base_model.model.model.layers.0.q_proj.base_layer.lora_A.weight",
            "model.layers.0.q_proj.lora_A.weight",
            "base_model.model.model.layers.0.q_proj_lora.down.weight",
            "model.layers.0.q_proj_lora.down",
        ] {
            assert_eq!(parse(spelled), key(q, Part::Down), "{spelled}");
        }
        assert_eq!(
            parse("base_model.model.score.modules_to_save.default.weight"),
            key("score", Part::Weight)
        );
        assert_eq!(
            parse("base_model.model.score.original_module.weight"),
            key("score", Part::Original)
        );
        assert_eq!(parse("base_model.model.q.base_layer.bias"), key("q", Part::Bias));
        assert_eq!(
            parse("base_model.model.q.lora_magnitude_vector.default.weight"),
            key("q", Part::Magnitude)
        );
        let hada = key("q", Part::Named("hada_w1_a"));
        assert_eq!(parse("base_model.model.q.hada_w1_a"), hada);
        assert_eq!(parse("base_model.model.q.hada_w1_a.default"), hada);
        let rotation = key("q", Part::Named("oft_R"));
        assert_eq!(parse("base_model.model.q.oft_R.default.weight"), rotation);
        assert_eq!(parse("base_model.vera_A"), key("", Part::Named("vera_A")));
        assert_eq!(parse("vera_A.lora_magnitude_vector.trainable_tokens_delta"), None);
        assert_eq!(parse("base_model.model.q.lora_diag"), key("q", Part::Foreign));
        assert_eq!(parse("base_model.model"), None);
        for (key, peft_type, spelled) in [
            ("base_model.model._orig_mod.q.lora_A.default", "ADALORA", "base_model.model.q.lora_A"),
            ("q.oft_R.default.weight", "OFT", "base_model.model.q.oft_R.weight"),
            ("base_model.model.q.base_layer.bias", "OFT", "base_model.model.q.base_layer.bias"),
            (
                "module.base_model.model.n.ln_tuning_layers.default.weight",
                "LN_TUNING",
                "base_model.model.n.ln_tuning_layers.weight",
            ),
            (
                "base_model.model.h.modules_to_save.default.weight",
                "IA3",
                "base_model.model.h.weight",
            ),
        ] {
            assert_eq!(respelled(key, peft_type).as_deref(), Some(spelled), "{key}");
        }
        assert_eq!(parse(""), None);
    }

    proptest! {
        #[test]
        fn parse_undoes_format(
            path in prop::collection::vec("[a-z][a-z0-9_]{1,8}|[0-9]{1,2}", 1..6),
            index in 0usize..9 + tensors::PEFT.len(),
        ) {
            let mut parts = vec![
                Part::Down, Part::Up, Part::UpBias, Part::EmbeddingDown, Part::EmbeddingUp,
                Part::Magnitude, Part::TokenRows, Part::Weight, Part::Bias,
            ];
            parts.extend(tensors::PEFT.iter().map(|(name, _)| Part::Named(name)));
            // Names that PEFT itself gives a meaning cannot be a base's modules.
            let special = |p: &String| {
                ["modules_to_save", "original_module", "base_layer", "token_adapter", "module", "ln_tuning_layers"]
                    .contains(&p.as_str()) || foreign_family(p).is_some() || tensors::ending(tensors::PEFT, p).is_some()
            };
            prop_assume!(!path.iter().any(special));
            let key = Key { module: path.join("."), part: parts[index] };
            let text = format(&key).expect("spelled");
            prop_assert_eq!(parse(&text), Some(key));
        }

        #[test]
        fn no_key_panics(text in "\\PC{0,40}|([a-z_.]|lora_A|base_model|modules_to_save|\\.){0,12}") {
            let _ = parse(&text);
        }
    }
}
