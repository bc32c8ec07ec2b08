//! Experts for programs that read them otherwise: gpt-oss has gate and up of an expert row by row in turns, Llama 4 one
//! behind the other, and calls its layers' parts otherwise than other models.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Peft, Random, Tensors, lora_tool, read};

const EXPERTS: usize = 4;
const HIDDEN: usize = 32;
const INNER: usize = 16;
const RANK: usize = 2;

/// A model whose experts are stacks, inputs × outputs.
struct Stacked {
    class: &'static str,
    model_type: &'static str,
    /// What has the experts and their router.
    holder: &'static str,
    biased: bool,
}

const GPT_OSS: Stacked =
    Stacked { class: "GptOssForCausalLM", model_type: "gpt_oss", holder: "mlp", biased: true };

const LLAMA4: Stacked = Stacked {
    class: "Llama4ForCausalLM",
    model_type: "llama4_text",
    holder: "feed_forward",
    biased: false,
};

/// One layer of zeros, so that a merge is the update.
fn base(model: &Stacked, directory: &Path) -> PathBuf {
    std::fs::create_dir_all(directory).expect("a directory");
    let config = json!({
        "architectures": [model.class], "model_type": model.model_type, "num_local_experts": EXPERTS,
        "hidden_size": HIDDEN, "num_attention_heads": 4, "num_key_value_heads": 2,
    });
    std::fs::write(directory.join("config.json"), config.to_string()).expect("written");
    let zeros = |file: Tensors, name: &str, shape: &[usize]| {
        file.f32(name, shape, &vec![0.0; shape.iter().product()])
    };
    let layer = "model.layers.0";
    let mut file = Tensors::new();
    for (name, shape) in [
        ("experts.gate_up_proj", &[EXPERTS, HIDDEN, 2 * INNER][..]),
        ("experts.gate_up_proj_bias", &[EXPERTS, 2 * INNER]),
        ("experts.down_proj", &[EXPERTS, INNER, HIDDEN]),
        ("experts.down_proj_bias", &[EXPERTS, HIDDEN]),
        ("router.weight", &[EXPERTS, HIDDEN]),
        ("self_attn.q_proj.weight", &[HIDDEN, HIDDEN]),
        ("self_attn.k_proj.weight", &[HIDDEN / 2, HIDDEN]),
        ("self_attn.v_proj.weight", &[HIDDEN / 2, HIDDEN]),
    ] {
        let attention = name.starts_with("self_attn");
        if model.biased || !name.ends_with("bias") {
            let holder = if attention { "" } else { model.holder };
            let name = format!("{layer}.{holder}.{name}").replace("..", ".");
            file = zeros(file, &name, shape);
        }
    }
    file.save(&directory.join("model.safetensors"));
    directory.to_path_buf()
}

/// PEFT's stacks of the layer's experts, all queries, keys and values, and the router.
fn stacks(model: &Stacked, directory: &Path) -> PathBuf {
    let Stacked { holder, .. } = model;
    let mut random = Random::new(17);
    let mut values = |count: usize| random.values(count, 1.0);
    let experts = &format!("model.layers.0.{holder}.experts");
    let parameters = ["gate_up_proj", "down_proj"].map(|own| format!("{holder}.experts.{own}"));
    let router = format!("{holder}.router");
    let all = EXPERTS * RANK;
    let mut adapter = Peft::new(RANK, 3.0)
        .field("target_modules", json!(["q_proj", "k_proj", "v_proj", "router"]))
        .field("target_parameters", json!(parameters))
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
        (router.as_str(), EXPERTS),
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
    let (base, adapter) = (base(&GPT_OSS, &path("base")), stacks(&GPT_OSS, &path("stacks")));
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

/// Names and halves as llama.cpp's `conversion/llama4.py` makes them; no row is in another order.
#[test]
fn experts_of_llama_4_are_llama_cpp_s() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| scratch.path().join(name);
    let (base, adapter) = (base(&LLAMA4, &path("base")), stacks(&LLAMA4, &path("stacks")));
    let out = path("own.gguf");
    converted(&adapter, "llama.cpp", &base, &out);
    let after = update(&base, &out, &path("after"));
    let before = update(&base, &adapter, &path("before"));
    assert!(off(&before, &after) < 1e-5, "{}", off(&before, &after));
    let bytes = std::fs::read(&out).expect("a file");
    let has = |text: &str| bytes.windows(text.len()).any(|own| own == text.as_bytes());
    for name in ["attn_q", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"] {
        assert!(has(&format!("blk.0.{name}.weight.lora_a")), "{name}");
    }
}

/// A model of which llama.cpp's converter has no class is refused in those words.
#[test]
fn a_model_that_llama_cpp_cannot_run_is_refused() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| scratch.path().join(name);
    let adapter = stacks(&LLAMA4, &path("stacks"));
    for (model_type, expected) in [
        (
            "mllama",
            "llama.cpp cannot run this model: its converter has no class for model_type mllama",
        ),
        ("brand_new", "this version has no table of llama.cpp's names for model_type brand_new"),
    ] {
        let base = base(&Stacked { model_type, ..LLAMA4 }, &path(model_type));
        let mut command = lora_tool();
        command.arg("convert").arg(&adapter).args(["--for", "llama.cpp", "--reference"]).arg(base);
        let done = command.arg("-o").arg(path("out.gguf")).output().expect("it runs");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{said}");
        assert!(said.contains(expected) && !path("out.gguf").exists(), "{said}");
    }
}

#[test]
fn a_program_that_calls_them_otherwise_is_refused() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| scratch.path().join(name);
    // mlx-lm's class of the text model alone has its experts under no known name.
    let (base, adapter) = (base(&LLAMA4, &path("base")), stacks(&LLAMA4, &path("stacks")));
    let mut command = lora_tool();
    command.arg("convert").arg(adapter).args(["--for", "mlx", "--json", "--reference"]).arg(base);
    let done = command.arg("-o").arg(path("out")).output().expect("it runs");
    assert_eq!(done.status.code(), Some(2));
    let said: Value = serde_json::from_slice(&done.stderr).unwrap_or(Value::Null);
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(text.contains("mlx convention is unknown"), "{said} {text}");
    assert!(!path("out").exists());
}

/// mlx-lm's stacks of another class's name move to where the base's class has them.
#[test]
fn stacks_of_mlx_move_to_the_bases_class() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| scratch.path().join(name);
    let base = base(&GPT_OSS, &path("base"));
    let stack = |holder: &str| format!("model.layers.0.mlp.{holder}.gate_proj");
    let (a, b) = (vec![0.5; EXPERTS * RANK * HIDDEN], vec![0.25; EXPERTS * INNER * RANK]);
    Tensors::new()
        .f32(&format!("{}.lora_a", stack("switch_mlp")), &[EXPERTS, RANK, HIDDEN], &a)
        .f32(&format!("{}.lora_b", stack("switch_mlp")), &[EXPERTS, INNER, RANK], &b)
        .save(&path("adapter").join("adapters.safetensors"));
    let config = json!({
        "fine_tune_type": "lora", "num_layers": 1,
        "lora_parameters": { "rank": RANK, "scale": 2.0, "dropout": 0.0 },
    });
    std::fs::write(path("adapter").join("adapter_config.json"), config.to_string())
        .expect("written");
    let code = |adapter: &Path| {
        let mut command = lora_tool();
        command.arg("check").arg(adapter).args(["--for", "mlx", "--against"]).arg(&base);
        command.output().expect("it runs").status.code()
    };
    assert_eq!(code(&path("adapter")), Some(1));
    converted(&path("adapter"), "mlx", &base, &path("out"));
    let names: Vec<String> = read(&path("out").join("adapters.safetensors")).into_keys().collect();
    assert_eq!(names, ["lora_a", "lora_b"].map(|end| format!("{}.{end}", stack("experts"))));
    assert_eq!(code(&path("out")), Some(0));
}
