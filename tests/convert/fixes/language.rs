//! A language model, and adapters of it with one thing each that some program does not do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Peft, Random, Tensors};

/// Projections of a layer: name, inputs, outputs.
const PROJECTIONS: [(&str, usize, usize); 7] = [
    ("self_attn.q_proj", 64, 64),
    ("self_attn.k_proj", 64, 32),
    ("self_attn.v_proj", 64, 32),
    ("self_attn.o_proj", 64, 64),
    ("mlp.gate_proj", 64, 96),
    ("mlp.up_proj", 64, 96),
    ("mlp.down_proj", 96, 64),
];

const LAYERS: usize = 2;
const VOCABULARY: usize = 48;

fn name(layer: usize, projection: &str) -> String {
    format!("model.layers.{layer}.{projection}")
}

pub(super) fn base(directory: &Path) -> PathBuf {
    std::fs::create_dir_all(directory).expect("a directory");
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 128, "tie_word_embeddings": false,
    });
    std::fs::write(directory.join("config.json"), config.to_string()).expect("written");
    let mut random = Random::new(1);
    let mut file = Tensors::new();
    for head in ["model.embed_tokens", "lm_head"] {
        let values = random.values(VOCABULARY * 64, 0.1);
        file = file.f32(&format!("{head}.weight"), &[VOCABULARY, 64], &values);
    }
    file = file.f32("model.norm.weight", &[64], &[1.0; 64]);
    for layer in 0..LAYERS {
        for (projection, inputs, outputs) in PROJECTIONS {
            let values = random.values(outputs * inputs, 0.1);
            file = file.f32(
                &format!("{}.weight", name(layer, projection)),
                &[outputs, inputs],
                &values,
            );
        }
    }
    file.save(&directory.join("model.safetensors"));
    directory.to_path_buf()
}

/// An adapter of those projections of those layers that a condition holds for, of the ranks that it gives.
fn some(rank_of: impl Fn(usize, &str) -> usize) -> Peft {
    named(rank_of, name)
}

fn named(rank_of: impl Fn(usize, &str) -> usize, called: impl Fn(usize, &str) -> String) -> Peft {
    let mut random = Random::new(2);
    let mut adapter = Peft::new(8, 16.0);
    let mut leaves = BTreeSet::new();
    for layer in 0..LAYERS {
        for (projection, inputs, outputs) in PROJECTIONS {
            let rank = rank_of(layer, projection);
            if rank > 0 {
                leaves.insert(projection.rsplit('.').next().expect("a leaf"));
                let (a, b) =
                    (random.values(rank * inputs, 0.1), random.values(outputs * rank, 0.1));
                adapter = adapter.linear(&called(layer, projection), rank, &a, &b);
            }
        }
    }
    adapter.field("target_modules", json!(leaves))
}

/// The same, what stands in its tensors' names replaced.
fn renamed(mut adapter: Peft, from: &str, to: &str) -> Peft {
    for entry in &mut adapter.tensors.entries {
        entry.0 = entry.0.replace(from, to);
    }
    adapter
}

fn whole() -> Peft {
    some(|_, _| 8)
}

/// Each with one thing that some program does not do.
pub(super) fn adapters() -> Vec<(&'static str, Peft)> {
    let mut random = Random::new(3);
    let magnitudes = |adapter: Peft| {
        PROJECTIONS.iter().fold(adapter, |adapter, (projection, _, outputs)| {
            (0..LAYERS).fold(adapter, |adapter, layer| {
                let name = format!("{}.lora_magnitude_vector", name(layer, projection));
                adapter.tensor(&name, &[*outputs], &vec![0.5; *outputs])
            })
        })
    };
    let mut embedding = |adapter: Peft| {
        let (a, b) = (random.values(8 * VOCABULARY, 0.1), random.values(64 * 8, 0.1));
        adapter.tensor("model.embed_tokens.lora_embedding_A", &[8, VOCABULARY], &a).tensor(
            "model.embed_tokens.lora_embedding_B",
            &[64, 8],
            &b,
        )
    };
    vec![
        ("sound", whole()),
        ("rslora", whole().field("use_rslora", true)),
        (
            "alpha pattern",
            whole()
                .field("alpha_pattern", json!({ "up_proj": 64, "layers.1.self_attn.q_proj": 4 })),
        ),
        (
            "rank pattern",
            some(|_, own| if own == "mlp.up_proj" { 4 } else { 8 })
                .field("rank_pattern", json!({ "up_proj": 4 })),
        ),
        (
            "rank by layer",
            some(|layer, _| if layer == 1 { 4 } else { 8 })
                .field("rank_pattern", json!({ "layers.1.*": 4 })),
        ),
        ("a point in alpha", whole().field("lora_alpha", 12.5)),
        ("dora", magnitudes(whole()).field("use_dora", true)),
        ("pattern", whole().field("target_modules", ".*_proj")),
        ("queries alone", some(|_, own| usize::from(own == "self_attn.q_proj") * 8)),
        ("values alone", some(|_, own| usize::from(own == "self_attn.v_proj") * 8)),
        ("up alone", some(|_, own| usize::from(own == "mlp.up_proj") * 8)),
        ("one layer", some(|layer, _| usize::from(layer == 1) * 8)),
        (
            "rank beyond",
            some(|_, own| if own == "mlp.up_proj" { 600 } else { 8 })
                .field("rank_pattern", json!({ "up_proj": 600 })),
        ),
        (
            "a wrapper's names",
            named(|_, _| 8, |layer, own| format!("model.language_model.layers.{layer}.{own}")),
        ),
        (
            "another wrapper's names",
            named(|_, _| 8, |layer, own| format!("language_model.model.layers.{layer}.{own}")),
        ),
        ("no alpha in the config", whole().field("lora_alpha", Value::Null)),
        (
            "embeddings",
            embedding(whole()).field("target_modules", json!(["embed_tokens", "q_proj"])),
        ),
        ("an embedding that is no target", embedding(whole())),
        ("a name in the keys", renamed(whole(), ".weight", ".default.weight")),
        ("no prefix", renamed(whole(), "base_model.model.", "")),
        ("a bias that the config says", whole().field("bias", "all")),
        (
            "the head as a whole",
            whole().field("modules_to_save", json!(["lm_head"])).tensor(
                "lm_head.weight",
                &[VOCABULARY, 64],
                &Random::new(5).values(VOCABULARY * 64, 0.1),
            ),
        ),
        (
            "anchored patterns",
            some(|layer, own| if (layer, own) == (0, "mlp.up_proj") { 4 } else { 8 })
                .field("rank_pattern", json!({ "^model.layers.0.mlp.up_proj": 4 })),
        ),
    ]
}

/// A sound adapter with a list of tokens that the base does not have beside it.
pub(super) fn with_tokens(directory: &Path) -> PathBuf {
    let adapter = whole().save(directory);
    let text = json!({ "<new>": VOCABULARY }).to_string();
    std::fs::write(adapter.join("added_tokens.json"), text).expect("written");
    adapter
}

/// Rules of which some adapter here gets a fix, by program.
pub(super) const EXPECTED: [(&str, &[&str]); 14] = [
    ("llama.cpp", &["convention", "dora", "scale", "tensor-names"]),
    ("lmdeploy", &["dora", "names", "ranks", "scale", "targets", "tensor-names"]),
    ("lorax", &["dora", "missing-layers", "names", "ranks", "scale", "tensor-names"]),
    ("mlx", &["convention"]),
    ("ollama", &["alpha", "dora", "names", "query-rows", "scale", "tensor-names"]),
    ("openvino", &["dora", "names", "scale", "tensor-names"]),
    ("peft", &["names", "targets", "tensor-names"]),
    ("peft@0.13", &["anchored patterns", "names", "targets", "tensor-names"]),
    (
        "peft@0.5",
        &[
            "anchored patterns",
            "names",
            "rank_pattern and alpha_pattern",
            "targets",
            "tensor-names",
            "use_dora",
            "use_rslora",
        ],
    ),
    (
        "sglang",
        &[
            "config-fields",
            "dora",
            "embeddings",
            "query-without-value",
            "ranks",
            "scale",
            "targets",
            "tensor-names",
            "tokens",
            "up-without-gate",
            "value-without-query",
        ],
    ),
    ("tensorrt-llm", &["incomplete-attention", "scale", "tensor-names"]),
    ("tgi", &["dora", "missing-layers", "names", "ranks", "scale", "tensor-names"]),
    (
        "vllm",
        &[
            "bias-field",
            "config-fields",
            "dora",
            "names",
            "needless-rank",
            "rank",
            "replaced",
            "tensor-names",
        ],
    ),
    (
        "vllm@0.31",
        &[
            "bias-field",
            "config-fields",
            "dora",
            "names",
            "needless-rank",
            "patterns",
            "rank",
            "replaced",
            "tensor-names",
        ],
    ),
];
