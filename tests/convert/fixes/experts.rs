//! Models with experts and with latent attention, and adapters of them that some program wants otherwise.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::World;
use crate::common::{Peft, Random, Tensors};

const HIDDEN: usize = 32;
const INNER: usize = 12;
const EXPERTS: usize = 4;
const RANK: usize = 4;

const PLAIN: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];
const NUMBERED: [&str; 3] = ["w1", "w3", "w2"];

fn shape(place: usize) -> (usize, usize) {
    if place == 2 { (HIDDEN, INNER) } else { (INNER, HIDDEN) }
}

/// A base of one layer whose experts lie one by one.
fn base(
    directory: &Path,
    class: &str,
    model_type: &str,
    names: [&str; 3],
    holder: &str,
) -> PathBuf {
    let config = json!({
        "architectures": [class], "model_type": model_type, "hidden_size": HIDDEN,
        "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 1, "vocab_size": 8,
        "num_experts": EXPERTS, "moe_intermediate_size": INNER, "tie_word_embeddings": false,
    });
    written(directory, &config);
    let mut random = Random::new(1);
    let mut file = common(&mut random);
    for expert in 0..EXPERTS {
        for (place, name) in names.iter().enumerate() {
            let (rows, columns) = shape(place);
            let name = format!("model.layers.0.{holder}.experts.{expert}.{name}.weight");
            file = file.f32(&name, &[rows, columns], &random.values(rows * columns, 0.1));
        }
    }
    file.save(&directory.join("model.safetensors"));
    directory.to_path_buf()
}

fn common(random: &mut Random) -> Tensors {
    let mut file = Tensors::new()
        .f32("model.embed_tokens.weight", &[8, HIDDEN], &random.values(8 * HIDDEN, 0.1))
        .f32("lm_head.weight", &[8, HIDDEN], &random.values(8 * HIDDEN, 0.1));
    for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
        let values = random.values(HIDDEN * HIDDEN, 0.1);
        file = file.f32(
            &format!("model.layers.0.self_attn.{name}.weight"),
            &[HIDDEN, HIDDEN],
            &values,
        );
    }
    file
}

fn written(directory: &Path, config: &Value) {
    std::fs::create_dir_all(directory).expect("a directory");
    std::fs::write(directory.join("config.json"), config.to_string()).expect("written");
}

/// A base of one layer whose experts lie in stacks, outputs × inputs.
fn stacked_base(directory: &Path) -> PathBuf {
    let config = json!({
        "architectures": ["Qwen3VLMoeForConditionalGeneration"], "model_type": "qwen3_vl_moe",
        "text_config": { "model_type": "qwen3_vl_moe_text", "num_experts": EXPERTS },
    });
    written(directory, &config);
    let mut random = Random::new(2);
    let stem = "model.language_model.layers.0.mlp.experts";
    Tensors::new()
        .f32(
            &format!("{stem}.gate_up_proj"),
            &[EXPERTS, 2 * INNER, HIDDEN],
            &random.values(EXPERTS * 2 * INNER * HIDDEN, 0.1),
        )
        .f32(
            &format!("{stem}.down_proj"),
            &[EXPERTS, HIDDEN, INNER],
            &random.values(EXPERTS * HIDDEN * INNER, 0.1),
        )
        .save(&directory.join("model.safetensors"));
    directory.to_path_buf()
}

/// A base of one layer of latent attention.
fn latent_base(directory: &Path) -> PathBuf {
    let config = json!({
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
        "num_hidden_layers": 1, "vocab_size": 8,
    });
    written(directory, &config);
    let mut random = Random::new(3);
    Tensors::new()
        .f32(
            "model.layers.0.self_attn.q_a_proj.weight",
            &[8, HIDDEN],
            &random.values(8 * HIDDEN, 0.1),
        )
        .f32(
            "model.layers.0.self_attn.kv_a_proj_with_mqa.weight",
            &[12, HIDDEN],
            &random.values(12 * HIDDEN, 0.1),
        )
        .save(&directory.join("model.safetensors"));
    directory.to_path_buf()
}

fn with(adapter: Peft, name: &str, (outputs, inputs): (usize, usize), rank: usize) -> Peft {
    let mut random = Random::new(name.len() as u64);
    let (down, up) = (random.values(rank * inputs, 0.1), random.values(outputs * rank, 0.1));
    adapter.linear(name, rank, &down, &up)
}

/// Single experts of those that a condition holds for.
fn single(names: [&str; 3], holder: &str, wanted: impl Fn(usize, usize) -> bool) -> Peft {
    let mut adapter = Peft::new(RANK, 8.0).field("target_modules", json!(names));
    for expert in 0..EXPERTS {
        for (place, name) in names.iter().enumerate().filter(|(place, _)| wanted(expert, *place)) {
            let name = format!("model.layers.0.{holder}.experts.{expert}.{name}");
            adapter = with(adapter, &name, shape(place), RANK);
        }
    }
    adapter
}

/// PEFT's stacks of these parameters, as a release has their sides.
fn stacks(root: &str, parameters: &[&str], version: &str) -> Peft {
    let name = format!("{root}.layers.0.mlp.experts");
    let targets: Vec<String> = parameters.iter().map(|own| format!("mlp.experts.{own}")).collect();
    let adapter = Peft::new(RANK, 8.0).field("target_modules", json!([]));
    let adapter = adapter.field("target_parameters", json!(targets)).field("peft_version", version);
    let old = version.starts_with("0.18");
    parameters.iter().enumerate().fold(adapter, |adapter, (at, parameter)| {
        let (outputs, inputs) =
            if *parameter == "gate_up_proj" { (2 * INNER, HIDDEN) } else { (HIDDEN, INNER) };
        let size = if old { (inputs, outputs) } else { (outputs, inputs) };
        // The first parameter is wrapped by the others.
        let nested = ".base_layer".repeat(parameters.len() - 1 - at);
        with(adapter, &format!("{name}{nested}"), size, EXPERTS * RANK)
    })
}

/// Bases, their adapters, and who is asked.
pub(super) fn worlds(scratch: &Path) -> Vec<World> {
    let path = |name: &str| scratch.join(name);
    let both = ["gate_up_proj", "down_proj"];
    let qwen = World {
        base: base(&path("qwen"), "Qwen3MoeForCausalLM", "qwen3_moe", PLAIN, "mlp"),
        adapters: vec![
            ("stacks", stacks("model", &both, "0.21.2").save(&path("q stacks"))),
            ("stacks of an older PEFT", stacks("model", &both, "0.18.1").save(&path("q old"))),
            ("single experts", single(PLAIN, "mlp", |_, _| true).save(&path("q single"))),
            ("some experts", single(PLAIN, "mlp", |expert, _| expert < 3).save(&path("q some"))),
            ("other names", single(NUMBERED, "mlp", |_, _| true).save(&path("q numbered"))),
        ],
        programs: vec!["vllm", "sglang", "tensorrt-llm", "llama.cpp", "mlx"],
    };
    let holder = "block_sparse_moe";
    let phi = World {
        base: base(&path("phi"), "PhiMoEForCausalLM", "phimoe", NUMBERED, holder),
        adapters: vec![("other names", single(PLAIN, holder, |_, _| true).save(&path("p plain")))],
        programs: vec!["vllm", "sglang"],
    };
    let root = "model.language_model";
    let stacked = World {
        base: stacked_base(&path("vl")),
        adapters: vec![
            ("one stack", stacks(root, &["down_proj"], "0.21.2").save(&path("v down"))),
            ("the other", stacks(root, &["gate_up_proj"], "0.21.2").save(&path("v both"))),
            ("stacks of an older PEFT", stacks(root, &both, "0.18.1").save(&path("v old"))),
        ],
        programs: vec!["vllm", "peft"],
    };
    let latent = World {
        base: latent_base(&path("mla")),
        adapters: vec![(
            "queries alone",
            with(
                Peft::new(RANK, 8.0).field("target_modules", json!(["q_a_proj"])),
                "model.layers.0.self_attn.q_a_proj",
                (8, HIDDEN),
                RANK,
            )
            .save(&path("m queries")),
        )],
        programs: vec!["sglang"],
    };
    vec![qwen, phi, stacked, latent]
}

/// Rules of which some adapter here gets a fix, by program.
pub(super) const EXPECTED: [(&str, &[&str]); 6] = [
    ("llama.cpp", &["all-experts", "convention", "stacked-experts"]),
    ("mlx", &["convention"]),
    ("peft", &["stack-sides"]),
    ("sglang", &["latent-queries", "stacked-experts"]),
    ("tensorrt-llm", &["expert-names", "stacked-experts"]),
    (
        "vllm",
        &["all-experts", "both-stacks", "expert-names", "names", "stack-sides", "stacked-experts"],
    ),
];
