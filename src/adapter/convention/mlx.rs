//! mlx-lm's `adapters.safetensors`: `<path>.lora_a` (in × rank) and `.lora_b` (rank × out), the paths
//! transformers' own (mlx-lm `tuner/lora.py`, `tuner/dora.py`). A reader turns both around, so that
//! above here they are A and B as everywhere. Those of a layer's experts lie in stacks [E, rank, in] and
//! [E, out, rank], which are not turned (`LoRASwitchLinear`). Most classes have them in `switch_mlp`, some in `experts`
//! (`mlx_classes.rs`). So that a name says which, an expert of these is `experts.gate_projs.3` here, which every base
//! answers to, and one of those `experts.3.gate_proj`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::definition::{Convention, Holds, Hooks, Names, ScalePlace};
use super::mlx_classes::Stacks;
use super::opened::{Config, Opened, ReadOptions};
use super::shared::{MOST_EXPERTS, one_for_all, transposed};
use crate::adapter::key::{Key, MissingAlpha, Part};
use crate::adapter::new_adapter::{NewAdapter, NewModule, Output};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::access::read_config;
use crate::format::{Checkpoint, Tensor, json as bounded};

pub(super) static CONVENTION: Convention = Convention {
    name: "mlx",
    summary: "adapter_config.json and adapters.safetensors, dotted paths, one scale",
    missing_alpha: MissingAlpha::Unknown,
    scale: ScalePlace::Uniform,
    names: Names::Dotted,
    output: Output::Directory("adapters.safetensors"),
    holds: Holds { replacements: false, families: None },
    parse,
    format,
    recognises,
    hooks: Hooks {
        stack_of: Some(stack_of),
        owns_config: is_config,
        // Its keys say what it is; a config of what is no adapter is refused.
        claims: |_, config| open_config(config).map(|_| false),
        open_sidecar,
        orient,
        write_sidecar: Some(write_config),
        ..Hooks::PLAIN
    },
};

/// Last parts of the paths of embeddings, whose factors are spelled like all others.
const EMBEDDINGS: [&str; 4] = ["embed_tokens", "wte", "word_embeddings", "tok_embeddings"];

fn is_embedding(module: &str) -> bool {
    EMBEDDINGS.contains(&module.rsplit('.').next().unwrap_or_default())
}

fn parse(key: &str) -> Option<Key> {
    let (module, ending) = key.rsplit_once('.').filter(|(module, _)| !module.is_empty())?;
    let part = match (ending, is_embedding(module)) {
        ("lora_a", false) => Part::Down,
        ("lora_b", false) => Part::Up,
        ("lora_a", true) => Part::EmbeddingDown,
        ("lora_b", true) => Part::EmbeddingUp,
        ("m", _) => Part::Magnitude,
        _ => return None,
    };
    Some(Key { module: module.to_owned(), part })
}

fn format(key: &Key) -> Option<String> {
    let ending = match (key.part, is_embedding(&key.module)) {
        (Part::Down, false) | (Part::EmbeddingDown, true) => "lora_a",
        (Part::Up, false) | (Part::EmbeddingUp, true) => "lora_b",
        (Part::Magnitude, _) => "m",
        _ => return None,
    };
    Some(format!("{}.{ending}", key.module))
}

fn recognises(key: &str) -> bool {
    key.ends_with(".lora_a") && parse(key).is_some()
}

/// Reads its config, and turns the factors.
fn open_sidecar(
    mut opened: Opened,
    config: Option<Config<'_>>,
    _: &ReadOptions<'_>,
) -> Result<Opened> {
    opened.file = turned(opened.file)?;
    match config {
        Some(Config::File(path)) => {
            opened.stated_scale = Some(open_config(path)?);
            opened.config_path = Some(path.to_path_buf());
        }
        Some(Config::Text(text)) => opened.stated_scale = Some(scale_of(text)?),
        None => {}
    }
    Ok(opened)
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
fn stack_of(module: &str) -> Option<(String, usize)> {
    let (above, last) = module.rsplit_once('.')?;
    if let Some((stack, number)) = number(last).and_then(|expert| listed(above, expert)) {
        return Some((stack, number));
    }
    let (holder, expert) = above.rsplit_once('.')?;
    let holder = holder.strip_suffix(".experts")?;
    let expert = number(expert)?;
    let mixtral = holder.ends_with(MIXTRAL);
    let named = |known: &&(&str, &str, &str)| last == if mixtral { known.2 } else { known.1 };
    let (theirs, ..) = EXPERTS.iter().find(named)?;
    Some((format!("{holder}.switch_mlp.{theirs}"), expert))
}

/// The stack of `experts.gate_projs.3`.
fn listed(above: &str, expert: usize) -> Option<(String, usize)> {
    let matrix = above.rsplit_once(".experts.")?.1.strip_suffix('s')?;
    let known = EXPERTS.iter().any(|known| known.0 == matrix);
    known.then(|| (above.strip_suffix('s').unwrap_or(above).to_owned(), expert))
}

fn number(part: &str) -> Option<usize> {
    part.parse().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The name here of `experts.3.gate_proj` (or Mixtral's `w1`), in a class that has its stacks there; `None`, if it
/// has no such stack.
pub(crate) fn of_class(expert: &str, stacks: Stacks) -> Option<String> {
    let (stack, number) = stack_of(expert)?;
    match stacks {
        Stacks::SwitchMlp => Some(expert.to_owned()),
        Stacks::InExperts => {
            let (holder, matrix) = stack.rsplit_once(".switch_mlp.")?;
            Some(format!("{holder}.experts.{matrix}s.{number}"))
        }
        Stacks::Unnamed => None,
    }
}

/// `experts.3.gate_proj` for `experts.gate_projs.3`; any other name as it is.
pub(crate) fn one_by_one(module: &str) -> String {
    let found = module.rsplit_once('.').and_then(|(above, last)| {
        let (stack, number) = listed(above, number(last)?)?;
        let (holder, matrix) = stack.rsplit_once('.')?;
        Some(format!("{holder}.{number}.{matrix}"))
    });
    found.unwrap_or_else(|| module.to_owned())
}

/// The matrices of a stack of experts, each as a module of its own; any other tensor as it is.
fn apart(tensor: Tensor) -> Vec<Tensor> {
    let (name, dtype, shape, bytes) = &tensor;
    let [experts @ 1..=MOST_EXPERTS, rows, columns] = *shape.as_slice() else {
        return vec![tensor];
    };
    let Some((stack, factor)) = name.rsplit_once('.') else { return vec![tensor] };
    let of_expert = |expert: usize| {
        let (above, theirs) = stack.rsplit_once('.')?;
        let (_, current, mixtral) = EXPERTS.iter().find(|known| known.0 == theirs)?;
        let Some(holder) = above.strip_suffix(".switch_mlp") else {
            return above.ends_with(".experts").then(|| format!("{stack}s.{expert}"));
        };
        let matrix = if holder.ends_with(MIXTRAL) { mixtral } else { current };
        Some(format!("{holder}.experts.{expert}.{matrix}"))
    };
    let size = bytes.len() / experts;
    let matrix = |(expert, bytes): (usize, &[u8])| {
        let name = format!("{}.{factor}", of_expert(expert)?);
        Some((name, *dtype, vec![rows, columns], bytes.to_vec()))
    };
    let parts = bytes.chunks_exact(size.max(1)).take(experts).enumerate().map(matrix);
    parts.collect::<Option<_>>().unwrap_or_else(|| vec![tensor.clone()])
}

/// Whether a config is mlx-lm's.
fn is_config(document: &Map<String, Value>) -> bool {
    !document.contains_key("peft_type")
        && (document.contains_key("fine_tune_type") || document.contains_key("lora_parameters"))
}

/// The scale that a config says.
fn open_config(path: &Path) -> Result<f64> {
    scale_of(&read_config(path).in_file(path)?).in_file(path)
}

fn scale_of(text: &[u8]) -> Result<f64> {
    let document = bounded::object(text)
        .map_err(|error| ErrorKind::BadConfig { reason: error.to_string() })?;
    scale(&document)
}

/// What B · A is multiplied by (mlx-lm `tuner/utils.py`); mlx-lm does not divide by the rank.
fn scale(document: &Map<String, Value>) -> Result<f64> {
    let kind = document.get("fine_tune_type").and_then(Value::as_str).unwrap_or("lora");
    if !["lora", "dora"].contains(&kind) {
        let reason = "mlx-lm's whole fine-tunes hold weights, not an adapter".to_owned();
        return Err(ErrorKind::UnsupportedType { peft_type: kind.to_owned(), reason }.into());
    }
    let scale = document.get("lora_parameters").and_then(|parameters| parameters.get("scale"));
    scale
        .and_then(Value::as_f64)
        .filter(|scale| scale.is_finite())
        .ok_or_else(|| {
            let reason =
                "`lora_parameters` has no `scale`, so the update's size is unknown".to_owned();
            ErrorKind::BadConfig { reason }
        })
        .map_err(Into::into)
}

/// The same tensors, factors turned from in × rank and rank × out to rank × in and out × rank.
fn turned(file: Checkpoint) -> Result<Checkpoint> {
    let mut tensors: Vec<Tensor> = Vec::with_capacity(file.len());
    for name in file.names() {
        let view = file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
        let mut scratch = Vec::new();
        let bytes = view.all(&mut scratch)?;
        let factor = parse(name).is_some_and(|key| key.part != Part::Magnitude);
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

/// Turns factors to in × rank and rank × out; not those of experts, which become stacks, and no magnitudes.
fn orient(part: Part, tensor: Tensor) -> Tensor {
    let expert = tensor.0.rsplit_once('.').is_some_and(|(module, _)| stack_of(module).is_some());
    let (name, dtype, shape, bytes) = tensor;
    match shape.as_slice() {
        [rows, columns] if part != Part::Magnitude && !expert => {
            let bytes = transposed(&bytes, *rows, *columns);
            (name, dtype, vec![*columns, *rows], bytes)
        }
        _ => (name, dtype, shape, bytes),
    }
}

/// mlx-lm's config (mlx-lm `tuner/utils.py`, `load_adapters`).
fn write_config(adapter: &NewAdapter, _: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let modules: &[NewModule] = &adapter.modules;
    let scale = one_for_all(modules.iter().map(|module| module.scale), "scale")?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parse_undoes_format(
            path in prop::collection::vec("[a-z][a-z0-9_]{1,8}|[0-9]{1,2}|wte|embed_tokens", 1..6),
            index in 0usize..5,
        ) {
            let parts = [
                Part::Down, Part::Up, Part::EmbeddingDown, Part::EmbeddingUp, Part::Magnitude,
            ];
            let key = Key { module: path.join("."), part: parts[index] };
            if let Some(text) = format(&key) {
                prop_assert_eq!(parse(&text), Some(key));
            } else {
                let embedding = matches!(key.part, Part::EmbeddingDown | Part::EmbeddingUp);
                prop_assert_ne!(embedding, is_embedding(&key.module));
            }
        }

        #[test]
        fn no_key_panics(text in "\\PC{0,40}|([a-z_.]|lora_a|\\.){0,12}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn stacks_come_apart_and_together() {
        for (stack, second) in [
            ("model.layers.0.mlp.switch_mlp.up_proj", "model.layers.0.mlp.experts.1.up_proj"),
            ("a.block_sparse_moe.switch_mlp.up_proj", "a.block_sparse_moe.experts.1.w3"),
            ("a.mlp.experts.up_proj", "a.mlp.experts.up_projs.1"),
        ] {
            let bytes = vec![1, 2, 3, 4];
            let tensor =
                (format!("{stack}.lora_a"), crate::format::Dtype::U8, vec![2, 1, 2], bytes);
            let parts = apart(tensor);
            assert_eq!(
                (parts[1].0.as_str(), &parts[1].3[..]),
                (&*format!("{second}.lora_a"), &[3, 4][..])
            );
            assert_eq!(stack_of(second), Some((stack.to_owned(), 1)));
        }
        let of = |name, stacks| of_class(name, stacks);
        let (up, w3) = ("a.mlp.experts.1.up_proj", "a.block_sparse_moe.experts.1.w3");
        let listed = "a.mlp.experts.up_projs.1";
        assert_eq!(of(up, Stacks::InExperts).as_deref(), Some(listed));
        assert_eq!(of(w3, Stacks::SwitchMlp).as_deref(), Some(w3));
        assert_eq!(of(up, Stacks::Unnamed), None);
        assert_eq!(one_by_one(listed), up);
        assert_eq!(one_by_one(up), up);
        assert_eq!(stack_of("a.mlp.experts.1.w3"), None);
        assert_eq!(stack_of("a.mlp.experts.others.1"), None);
        assert_eq!(stack_of("a.mlp.experts.+1.up_proj"), None);
    }

    #[test]
    fn configs_of_others_are_left_alone_and_bad_ones_refused() {
        let of = |text: &str| serde_json::from_str::<Map<String, Value>>(text).expect("JSON");
        assert!(!is_config(&of(r#"{"peft_type":"LORA","lora_parameters":{}}"#)));
        assert!(!is_config(&of("{}")));
        let good = of(r#"{"fine_tune_type":"dora","lora_parameters":{"rank":8,"scale":20.0}}"#);
        let good = scale(&good).expect("parses");
        assert!(good == 20.0);
        for bad in [
            r#"{"fine_tune_type":"full"}"#,
            r#"{"fine_tune_type":"lora"}"#,
            r#"{"lora_parameters":{"scale":"x"}}"#,
        ] {
            assert!(scale(&of(bad)).is_err(), "{bad}");
        }
    }
}
