//! Experts for programs that read them otherwise: gpt-oss has gate and up of an expert row by row in turns.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Peft, Random, Tensors, lora_tool, read};

const EXPERTS: usize = 4;
const HIDDEN: usize = 32;
const INNER: usize = 16;
const RANK: usize = 2;

/// A gpt-oss of one layer of zeros, so that a merge is the update. Stacks are inputs × outputs, with biases.
fn base(directory: &Path) -> PathBuf {
    std::fs::create_dir_all(directory).expect("a directory");
    let config = json!({
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "num_local_experts": EXPERTS,
        "hidden_size": HIDDEN, "num_attention_heads": 4, "num_key_value_heads": 2,
    });
    std::fs::write(directory.join("config.json"), config.to_string()).expect("written");
    let zeros = |file: Tensors, name: &str, shape: &[usize]| {
        file.f32(name, shape, &vec![0.0; shape.iter().product()])
    };
    let layer = "model.layers.0";
    let mut file = Tensors::new();
    for (name, shape) in [
        ("mlp.experts.gate_up_proj", &[EXPERTS, HIDDEN, 2 * INNER][..]),
        ("mlp.experts.gate_up_proj_bias", &[EXPERTS, 2 * INNER]),
        ("mlp.experts.down_proj", &[EXPERTS, INNER, HIDDEN]),
        ("mlp.experts.down_proj_bias", &[EXPERTS, HIDDEN]),
        ("mlp.router.weight", &[EXPERTS, HIDDEN]),
        ("self_attn.q_proj.weight", &[HIDDEN, HIDDEN]),
        ("self_attn.k_proj.weight", &[HIDDEN / 2, HIDDEN]),
        ("self_attn.v_proj.weight", &[HIDDEN / 2, HIDDEN]),
    ] {
        file = zeros(file, &format!("{layer}.{name}"), shape);
    }
    file.save(&directory.join("model.safetensors"));
    directory.to_path_buf()
}

/// PEFT's stacks of the layer's experts, all queries, keys and values, and the router.
fn stacks(directory: &Path) -> PathBuf {
    let mut random = Random::new(17);
    let mut values = |count: usize| random.values(count, 1.0);
    let experts = "model.layers.0.mlp.experts";
    let all = EXPERTS * RANK;
    let mut adapter = Peft::new(RANK, 3.0)
        .field("target_modules", json!(["q_proj", "k_proj", "v_proj", "router"]))
        .field("target_parameters", json!(["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]))
        .linear(
            &format!("{experts}.base_layer"),
            all,
            &values(all * HIDDEN),
            &values(2 * INNER * all),
        )
        .linear(experts, all, &values(all * INNER), &values(HIDDEN * all));
    for (name, outputs) in [
        ("self_attn.q_proj", HIDDEN),
        ("self_attn.k_proj", HIDDEN / 2),
        ("self_attn.v_proj", HIDDEN / 2),
        ("mlp.router", EXPERTS),
    ] {
        let name = format!("model.layers.0.{name}");
        adapter = adapter.linear(&name, RANK, &values(RANK * HIDDEN), &values(outputs * RANK));
    }
    adapter.save(directory)
}

fn converted(adapter: &Path, program: &str, base: &Path, out: &Path) {
    let mut command = lora_tool();
    command.arg("convert").arg(adapter).args(["--for", program, "--reference"]).arg(base);
    command.arg("-o").arg(out).assert().success();
}

fn update(base: &Path, adapter: &Path, out: &Path) -> Vec<(String, Vec<f64>)> {
    let mut command = lora_tool();
    command.arg("merge").arg(base).arg(adapter).arg("-o").arg(out).assert().success();
    read(out).into_iter().map(|(name, tensor)| (name, tensor.values())).collect()
}

fn off(before: &[(String, Vec<f64>)], after: &[(String, Vec<f64>)]) -> f64 {
    let pairs = before.iter().zip(after).flat_map(|(a, b)| a.1.iter().zip(&b.1));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn experts_of_gpt_oss_go_one_by_one_and_back() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| scratch.path().join(name);
    let (base, adapter) = (base(&path("base")), stacks(&path("stacks")));
    let before = update(&base, &adapter, &path("before"));
    assert!(before.iter().any(|(_, values)| values.iter().any(|value| *value != 0.0)));
    for program in ["sglang", "llama.cpp"] {
        let out = path(if program == "sglang" { "single" } else { "single.gguf" });
        converted(&adapter, program, &base, &out);
        let after = update(&base, &out, &path(&format!("{program} merged")));
        assert!(off(&before, &after) < 1e-5, "{program}: {}", off(&before, &after));
        let mut command = lora_tool();
        command.arg("check").arg(&out).args(["--for", program, "--against"]).arg(&base);
        command.assert().success();
    }
    // An expert's gate has every second row.
    let [stacked, single] =
        [adapter, path("single")].map(|own| read(&own.join("adapter_model.safetensors")));
    let up = |rank: usize| {
        stacked["base_model.model.model.layers.0.mlp.experts.base_layer.lora_B.weight"]
            .values()
            .chunks(EXPERTS * RANK)
            .map(|row| row[rank])
            .collect::<Vec<_>>()
    };
    let gate =
        single["base_model.model.model.layers.0.mlp.experts.1.gate_proj.lora_B.weight"].values();
    let gate: Vec<f64> = gate.chunks(RANK).map(|row| row[0]).collect();
    // B's columns are those of all experts for the first direction, then for the second.
    let expected: Vec<f64> = up(1).into_iter().step_by(2).collect();
    assert_eq!(gate, expected);
    // Back for a program that reads stacks.
    converted(&path("single"), "vllm", &base, &path("again"));
    let after = update(&base, &path("again"), &path("again merged"));
    assert!(off(&before, &after) < 1e-5);
    let keys = read(&path("again").join("adapter_model.safetensors"));
    assert!(keys.keys().any(|key| key.contains("experts.base_layer.lora_A")), "{:?}", keys.keys());
}

#[test]
fn a_program_that_calls_them_otherwise_is_refused() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| scratch.path().join(name);
    let (base, adapter) = (base(&path("base")), stacks(&path("stacks")));
    let mut command = lora_tool();
    command.arg("convert").arg(adapter).args(["--for", "mlx", "--json", "--reference"]).arg(base);
    let done = command.arg("-o").arg(path("out")).output().expect("it runs");
    assert_eq!(done.status.code(), Some(2));
    let said: Value = serde_json::from_slice(&done.stderr).unwrap_or(Value::Null);
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(text.contains("mlx convention is unknown"), "{said} {text}");
    assert!(!path("out").exists());
}
