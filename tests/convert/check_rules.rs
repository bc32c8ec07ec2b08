//! Every rule of the programs: an adapter that it is about, and one that is nearly so and of which it says nothing.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bases;
mod config;
mod local;
mod pictures;
mod servers;
mod vllm;
mod vllm_bases;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Peft, Random, Tensors, fixture, lora_tool};

const RANK: usize = 4;

/// Projections of a layer of `fixtures/llama/base`: name, inputs, outputs.
const PROJECTIONS: [(&str, usize, usize); 7] = [
    ("self_attn.q_proj", 64, 64),
    ("self_attn.k_proj", 64, 32),
    ("self_attn.v_proj", 64, 32),
    ("self_attn.o_proj", 64, 64),
    ("mlp.gate_proj", 64, 96),
    ("mlp.up_proj", 64, 96),
    ("mlp.down_proj", 96, 64),
];

/// The bases that rules ask about.
#[derive(Clone, Copy)]
enum Base {
    None,
    /// `fixtures/llama/base`.
    Llama,
    /// The same, whose head is its embeddings.
    Tied,
    /// A config alone of this class.
    Class(&'static str),
    /// As many key heads as query heads.
    EvenHeads,
    /// A case of `fixtures/serving`.
    Case(&'static str),
    /// A config alone, as it stands in its file.
    Config(&'static str),
}

const QWEN_MOE: Base = Base::Case("04_vllm_peft_stacks_on_qwen3_moe");
const GPT_OSS: Base = Base::Case("05_vllm_stacks_on_gpt_oss");
const QWEN_VL: Base = Base::Case("01_vllm_text_only_names_on_qwen3vl");

impl Base {
    fn path(self, scratch: &Path) -> Option<PathBuf> {
        let config = |name: &str, document: Value| {
            let directory = scratch.join(name);
            std::fs::create_dir_all(&directory).expect("a directory");
            let text = document.to_string();
            std::fs::write(directory.join("config.json"), text).expect("written");
            directory
        };
        Some(match self {
            Self::None => return None,
            Self::Llama => fixture("llama/base"),
            Self::Case(case) => fixture("serving").join(case).join("base"),
            Self::Class(class) => config(class, json!({ "architectures": [class] })),
            Self::Config(text) => config("own", serde_json::from_str(text).expect("a config")),
            Self::EvenHeads => {
                let heads = json!({ "num_attention_heads": 4, "num_key_value_heads": 4 });
                config("even heads", heads)
            }
            Self::Tied => {
                let own = json!({
                    "architectures": ["LlamaForCausalLM"], "model_type": "llama",
                    "tie_word_embeddings": true, "num_attention_heads": 4, "num_key_value_heads": 2,
                });
                let directory = config("tied", own);
                Tensors::new()
                    .f32("model.embed_tokens.weight", &[48, 64], &[0.5; 48 * 64])
                    .f32("model.layers.0.self_attn.q_proj.weight", &[64, 64], &[0.5; 64 * 64])
                    .save(&directory.join("model.safetensors"));
                directory
            }
        })
    }
}

/// Adds a module of these sizes.
fn with(adapter: Peft, name: &str, (inputs, outputs): (usize, usize), rank: usize) -> Peft {
    let mut random = Random::new(name.len() as u64 + 5);
    let (down, up) = (random.values(rank * inputs, 1.0), random.values(outputs * rank, 1.0));
    adapter.linear(name, rank, &down, &up)
}

/// An adapter of those projections of both layers that a condition holds for.
fn of(wanted: impl Fn(usize, &str) -> bool) -> Peft {
    let mut adapter = Peft::new(RANK, 8.0);
    let mut leaves = std::collections::BTreeSet::new();
    for layer in 0..2 {
        for (name, inputs, outputs) in PROJECTIONS.into_iter().filter(|own| wanted(layer, own.0)) {
            leaves.insert(name.rsplit('.').next().expect("a leaf"));
            adapter =
                with(adapter, &format!("model.layers.{layer}.{name}"), (inputs, outputs), RANK);
        }
    }
    adapter.field("target_modules", json!(leaves))
}

fn whole() -> Peft {
    of(|_, _| true)
}

fn only(leaves: &'static [&'static str]) -> Peft {
    of(move |_, name| leaves.contains(&name.rsplit('.').next().expect("a leaf")))
}

/// One module of this name.
fn named(name: &str) -> Peft {
    with(Peft::new(RANK, 8.0), name, (64, 64), RANK)
}

/// Factors of the embeddings of so many tokens.
fn embeddings(adapter: Peft, tokens: usize) -> Peft {
    adapter
        .tensor("model.embed_tokens.lora_embedding_A", &[RANK, tokens], &vec![0.5; RANK * tokens])
        .tensor("model.embed_tokens.lora_embedding_B", &[64, RANK], &[0.25; 64 * RANK])
}

fn head() -> Peft {
    with(whole(), "lm_head", (64, 48), RANK)
}

/// Both projections of the head's name, by `modules_to_save`.
fn saved(module: &str, rows: usize) -> Peft {
    let values = Random::new(9).values(rows * 64, 1.0);
    whole().field("modules_to_save", json!([module])).tensor(
        &format!("{module}.weight"),
        &[rows, 64],
        &values,
    )
}

fn magnitudes(adapter: Peft) -> Peft {
    PROJECTIONS.iter().fold(adapter.field("use_dora", true), |adapter, (name, _, outputs)| {
        (0..2).fold(adapter, |adapter, layer| {
            let name = format!("model.layers.{layer}.{name}.lora_magnitude_vector");
            adapter.tensor(&name, &[*outputs], &vec![0.5; *outputs])
        })
    })
}

/// Experts of the Qwen3-MoE base: 4 of inner size 16, hidden size 32.
fn experts(rank: impl Fn(usize, &str) -> usize, names: [&str; 3]) -> Peft {
    let mut adapter = Peft::new(RANK, 8.0).field("target_modules", json!(names));
    for expert in 0..4 {
        for (place, name) in names.iter().enumerate() {
            let sizes = if place == 1 { (16, 32) } else { (32, 16) };
            let rank = rank(expert, name);
            if rank > 0 {
                let name = format!("model.layers.0.mlp.experts.{expert}.{name}");
                adapter = with(adapter, &name, sizes, rank);
            }
        }
    }
    adapter
}

const PLAIN: [&str; 3] = ["gate_proj", "down_proj", "up_proj"];

/// Factors of all experts in one tensor each, A of gate and up and B of down shared.
fn joint() -> Peft {
    let mut adapter = Peft::new(RANK, 8.0);
    for (name, [own, inputs], [theirs, outputs]) in
        [("w1", [1, 32], [4, 16]), ("w3", [1, 32], [4, 16]), ("w2", [4, 16], [1, 32])]
    {
        let key = |part: &str| format!("model.layers.0.mlp.experts.{name}.{part}.weight");
        let mut random = Random::new(3);
        let down = random.values(own * RANK * inputs, 1.0);
        let up = random.values(theirs * outputs * RANK, 1.0);
        adapter = adapter.tensor(&key("lora_A"), &[own, RANK, inputs], &down).tensor(
            &key("lora_B"),
            &[theirs, outputs, RANK],
            &up,
        );
    }
    adapter
}

/// PEFT's stacks of the Qwen3-MoE base.
fn stacks() -> Peft {
    let name = "model.layers.0.mlp.experts";
    let targets = json!(["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]);
    let stacked = 4 * RANK;
    let adapter = Peft::new(RANK, 8.0).field("target_modules", json!([]));
    let adapter = adapter.field("target_parameters", targets);
    let adapter = with(adapter, &format!("{name}.base_layer"), (32, 32), stacked);
    with(adapter, name, (16, 32), stacked)
}

/// What lies at the adapter's path.
enum Made {
    Peft(Peft),
    /// A file of this name.
    File(&'static str, Tensors),
    /// A directory with this config and this file of tensors.
    Directory(Value, &'static str, Tensors),
    /// What is there already.
    Path(PathBuf),
}

impl From<Peft> for Made {
    fn from(adapter: Peft) -> Self {
        Self::Peft(adapter)
    }
}

impl Made {
    fn save(&self, scratch: &Path) -> PathBuf {
        match self {
            Self::Peft(adapter) => adapter.save(&scratch.join("adapter")),
            Self::File(name, tensors) => tensors.save(&scratch.join(name)),
            Self::Directory(config, name, tensors) => {
                let directory = scratch.join("adapter");
                tensors.save(&directory.join(name));
                let text = config.to_string();
                std::fs::write(directory.join("adapter_config.json"), text).expect("written");
                directory
            }
            Self::Path(path) => path.clone(),
        }
    }
}

/// The tensors of an adapter without `base_model.model.` before their names.
fn bare(adapter: Peft) -> Made {
    let mut tensors = adapter.tensors;
    for entry in &mut tensors.entries {
        entry.0 = entry.0.replacen("base_model.model.", "", 1);
    }
    Made::Directory(Value::Object(adapter.config), "adapter_model.safetensors", tensors)
}

/// The tensors of an adapter with its name in theirs.
fn called(adapter: Peft) -> Peft {
    let mut tensors = adapter.tensors;
    for entry in &mut tensors.entries {
        entry.0 = entry.0.replace(".weight", ".default.weight");
    }
    Peft { tensors, ..adapter }
}

struct Case {
    /// The rule of the table, and what of it.
    what: &'static str,
    program: &'static str,
    /// The rule's name in reports.
    rule: &'static str,
    /// What it does; nothing for a near miss.
    effect: Option<&'static str>,
    base: Base,
    adapter: Made,
}

/// A case in which the rule is about the adapter.
fn hit(
    what: &'static str,
    (program, rule, effect): (&'static str, &'static str, &'static str),
    base: Base,
    adapter: impl Into<Made>,
) -> Case {
    Case { what, program, rule, effect: Some(effect), base, adapter: adapter.into() }
}

/// A case in which it says nothing.
fn miss(
    what: &'static str,
    (program, rule): (&'static str, &'static str),
    base: Base,
    adapter: impl Into<Made>,
) -> Case {
    Case { what, program, rule, effect: None, base, adapter: adapter.into() }
}

/// A case in which no rule says anything but notes.
fn right(what: &'static str, program: &'static str, base: Base, adapter: impl Into<Made>) -> Case {
    miss(what, (program, ANY), base, adapter)
}

/// Whatever rule, but for notes.
const ANY: &str = "any rule";

const REFUSED: &str = "refused";
const IGNORED: &str = "ignored";
const SCALED: &str = "scaled-wrongly";
const CHANGED: &str = "changed";
const ELSEWHERE: &str = "lands-elsewhere";
const UNKNOWN: &str = "unknown";
const NOTE: &str = "note";

/// Findings of `check`.
fn findings(case: &Case, scratch: &Path) -> Vec<Value> {
    let adapter = case.adapter.save(scratch);
    let mut command = lora_tool();
    command.arg("check").arg(&adapter).args(["--for", case.program, "--json"]);
    if let Some(base) = case.base.path(scratch) {
        command.arg("--against").arg(base);
    }
    let done = command.output().expect("it runs");
    let report: Value = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|_| panic!("{}: {}", case.what, String::from_utf8_lossy(&done.stderr)));
    report["findings"].as_array().expect("findings").clone()
}

fn judged(cases: &[Case]) {
    let mut wrong = Vec::new();
    for case in cases {
        let scratch = tempfile::tempdir().expect("a directory");
        let found = findings(case, scratch.path());
        let is_own = |finding: &&Value| match case.rule {
            ANY => finding["severity"] != "note",
            // A rule of two effects has this one here.
            rule => {
                let effect = case.effect.is_none_or(|effect| finding["effect"] == effect);
                finding["rule"] == rule && effect
            }
        };
        let own = found.iter().find(is_own);
        let effect = own.map(|finding| finding["effect"].as_str().expect("an effect"));
        if effect != case.effect {
            let rules: Vec<_> = found.iter().map(|f| (&f["rule"], &f["effect"])).collect();
            let expected = case.effect;
            wrong.push(format!(
                "{} {} {}: {effect:?}, not {expected:?}, of {rules:?}",
                case.what, case.program, case.rule
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
