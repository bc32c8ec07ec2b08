//! The names under which programs have the modules of wrapped language models and of mixtures of experts,
//! as each program's own code finds them (`scripts/interop/servers_find.py`).
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Peft, Tensors, lora_tool, read};

const PROJECTIONS: [(&str, usize, usize); 2] = [("self_attn.q_proj", 8, 8), ("mlp.up_proj", 8, 12)];

/// A base of one layer, whose language model is below `root`.
fn base(directory: &Path, config: &Value, root: &str) -> PathBuf {
    std::fs::create_dir_all(directory).expect("a directory");
    std::fs::write(directory.join("config.json"), config.to_string()).expect("written");
    let tower = "model.visual.blocks.0.attn.proj.weight";
    let mut tensors = Tensors::new().f32(tower, &[8, 8], &[0.5; 64]);
    for (name, inputs, outputs) in PROJECTIONS {
        let name = format!("{root}layers.0.{name}.weight");
        tensors = tensors.f32(&name, &[outputs, inputs], &vec![0.25; outputs * inputs]);
    }
    tensors.save(&directory.join("model.safetensors"));
    directory.to_path_buf()
}

fn adapter(directory: &Path, root: &str) -> PathBuf {
    let mut adapter = Peft::new(2, 4.0).field("target_modules", json!(["q_proj", "up_proj"]));
    for (name, inputs, outputs) in PROJECTIONS {
        let (down, up) = (vec![0.5; 2 * inputs], vec![0.25; 2 * outputs]);
        adapter = adapter.linear(&format!("{root}layers.0.{name}"), 2, &down, &up);
    }
    adapter.save(directory)
}

fn convert(adapter: &Path, program: &str, base: &Path, out: &Path) {
    let mut command = lora_tool();
    command.arg("convert").arg(adapter).args(["--for", program, "--reference"]).arg(base);
    command.arg("-o").arg(out).assert().success();
}

/// Whether the program finds everything in it.
fn passes(adapter: &Path, program: &str, base: &Path) -> bool {
    let mut command = lora_tool();
    command.arg("check").arg(adapter).args(["--for", program, "--against"]).arg(base);
    command.output().expect("it runs").status.code() == Some(0)
}

/// Names of the modules in a directory's file, without the factors' endings.
fn modules(directory: &Path) -> BTreeSet<String> {
    let files = ["adapter_model.safetensors", "adapters.safetensors"].map(|f| directory.join(f));
    let file = files.iter().find(|file| file.exists()).expect("a file");
    let stem = |name: String| {
        let name = name.trim_start_matches("base_model.model.");
        name.split(".lora_").next().expect("a stem").to_owned()
    };
    read(file).into_keys().map(stem).collect()
}

fn layer(root: &str) -> BTreeSet<String> {
    PROJECTIONS.iter().map(|(name, ..)| format!("{root}layers.0.{name}")).collect()
}

const TEXT: &str = "model.";
const NESTED: &str = "model.language_model.";
const OUTER: &str = "language_model.model.";

#[test]
fn a_wrapped_language_model_is_where_the_program_has_it() {
    let scratch = tempfile::tempdir().expect("a directory");
    let of = |class: &str, kind: &str| {
        json!({
            "architectures": [class], "model_type": kind, "num_attention_heads": 2,
            "vision_config": { "depth": 1 },
        })
    };
    let qwen2 = of("Qwen2VLForConditionalGeneration", "qwen2_vl");
    let qwen3 = of("Qwen3VLForConditionalGeneration", "qwen3_vl");
    let mistral = of("Mistral3ForConditionalGeneration", "mistral3");
    // The names of Qwen2-VL's checkpoints are a text model's, those of its class are not.
    for (number, (config, stored, peft, served)) in [
        (&qwen2, TEXT, NESTED, TEXT),
        (&qwen3, NESTED, NESTED, NESTED),
        (&mistral, OUTER, OUTER, OUTER),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = scratch.path().join(number.to_string());
        let base = base(&folder.join("base"), config, stored);
        for spelled in [TEXT, NESTED, OUTER] {
            let own = adapter(&folder.join(format!("own {spelled}")), spelled);
            for (program, expected) in [("peft", peft), ("mlx", OUTER), ("vllm", served)] {
                let out = folder.join(format!("{program} {spelled}"));
                convert(&own, program, &base, &out);
                assert_eq!(modules(&out), layer(expected), "{stored} {spelled} for {program}");
                assert!(passes(&out, program, &base), "{stored} {spelled} for {program}");
            }
        }
    }
}

#[test]
fn names_outside_of_the_wrapper_are_found_by_neither_peft_nor_mlx() {
    let scratch = tempfile::tempdir().expect("a directory");
    let config =
        json!({ "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl" });
    let base = base(&scratch.path().join("base"), &config, "model.");
    let text = adapter(&scratch.path().join("text"), "model.");
    assert!(!passes(&text, "peft", &base));
    let nested = adapter(&scratch.path().join("nested"), "model.language_model.");
    assert!(passes(&nested, "peft", &base));
}

#[test]
fn gguf_has_a_wrapped_language_model_by_itself() {
    let scratch = tempfile::tempdir().expect("a directory");
    let text =
        json!({ "model_type": "mistral", "num_attention_heads": 2, "num_key_value_heads": 2 });
    let config = |kind: &str| {
        json!({
            "architectures": ["Mistral3ForConditionalGeneration"], "model_type": kind,
            "text_config": text, "vision_config": {},
        })
    };
    // The second is a wrapper that llama.cpp has no name for: its language model is what it converts.
    for (number, (kind, expected)) in
        [("mistral3", "mistral3"), ("brand_new", "llama")].into_iter().enumerate()
    {
        let folder = scratch.path().join(number.to_string());
        let base = base(&folder.join("base"), &config(kind), OUTER);
        for spelled in [TEXT, NESTED, OUTER] {
            let own = adapter(&folder.join(format!("own {spelled}")), spelled);
            let out = folder.join(format!("{spelled}gguf"));
            convert(&own, "llama.cpp", &base, &out);
            let bytes = std::fs::read(&out).expect("a file");
            let has = |text: &str| bytes.windows(text.len()).any(|own| own == text.as_bytes());
            assert!(has(expected), "{kind} {spelled}");
            assert!(has("blk.0.attn_q.weight.lora_a") && has("blk.0.ffn_up.weight.lora_b"));
        }
    }
}

#[test]
fn a_kind_of_module_is_in_every_layer_for_servers_that_want_it_there() {
    let scratch = tempfile::tempdir().expect("a directory");
    let folder = scratch.path().join("base");
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 3,
    });
    std::fs::create_dir_all(&folder).expect("a directory");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("written");
    let name = |layer: usize| format!("model.layers.{layer}.self_attn.q_proj");
    let add =
        |file: Tensors, layer| file.f32(&format!("{}.weight", name(layer)), &[8, 8], &[0.5; 64]);
    (0..3).fold(Tensors::new(), add).save(&folder.join("model.safetensors"));
    let own = Peft::new(2, 4.0).linear(&name(1), 2, &[0.5; 16], &[0.25; 16]);
    let own = own.save(&scratch.path().join("own"));
    for program in ["tgi", "lorax"] {
        assert!(!passes(&own, program, &folder), "{program}");
        let out = scratch.path().join(program);
        convert(&own, program, &folder, &out);
        assert_eq!(modules(&out), (0..3).map(name).collect(), "{program}");
        let file = read(&out.join("adapter_model.safetensors"));
        let up = |layer: usize| &file[&format!("base_model.model.{}.lora_B.weight", name(layer))];
        assert!(up(0).values().iter().chain(&up(2).values()).all(|value| *value == 0.0));
        assert_eq!(up(1).values(), [0.25; 16]);
        assert!(passes(&out, program, &folder), "{program}");
    }
}

/// A base of two experts as Mixtral's checkpoints call them, and an adapter of their parameters as a whole.
fn mixture(directory: &Path) -> (PathBuf, PathBuf) {
    let base = directory.join("base");
    std::fs::create_dir_all(&base).expect("a directory");
    let config = json!({
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "hidden_size": 8, "intermediate_size": 6,
    });
    std::fs::write(base.join("config.json"), config.to_string()).expect("written");
    let mut tensors = Tensors::new();
    for expert in 0..2 {
        for (name, outputs, inputs) in [("w1", 6, 8), ("w2", 8, 6), ("w3", 6, 8)] {
            let name = format!("model.layers.0.block_sparse_moe.experts.{expert}.{name}.weight");
            tensors = tensors.f32(&name, &[outputs, inputs], &[0.5; 48]);
        }
    }
    tensors.save(&base.join("model.safetensors"));
    let values = |count: usize| (0..count).map(|n| (n % 5) as f32 - 2.0).collect::<Vec<_>>();
    let experts = "model.layers.0.mlp.experts";
    let stacks = ["gate_up_proj", "down_proj"].map(|name| format!("{experts}.{name}"));
    let adapter = Peft::new(2, 4.0)
        .field("target_modules", json!([]))
        .field("target_parameters", json!(stacks))
        .tensor(&format!("{experts}.base_layer.lora_A.weight"), &[4, 8], &values(32))
        .tensor(&format!("{experts}.base_layer.lora_B.weight"), &[12, 4], &values(48))
        .tensor(&format!("{experts}.lora_A.weight"), &[4, 6], &values(24))
        .tensor(&format!("{experts}.lora_B.weight"), &[8, 4], &values(32))
        .save(&directory.join("adapter"));
    (base, adapter)
}

#[test]
fn peft_keeps_stacks_and_servers_get_experts_as_they_look_for_them() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (base, adapter) = mixture(scratch.path());
    // transformers has the stacks, whatever the checkpoint has.
    let peft = scratch.path().join("peft");
    convert(&adapter, "peft", &base, &peft);
    assert_eq!(
        read(&peft.join("adapter_model.safetensors")),
        read(&adapter.join("adapter_model.safetensors"))
    );
    assert!(passes(&peft, "peft", &base));
    let expert = |name: &str| {
        let all =
            (0..2).map(|number| format!("model.layers.0.block_sparse_moe.experts.{number}.{name}"));
        all.collect::<Vec<_>>()
    };
    let expected: BTreeSet<String> = ["w1", "w2", "w3"].into_iter().flat_map(expert).collect();
    for program in ["vllm", "sglang"] {
        let out = scratch.path().join(program);
        convert(&adapter, program, &base, &out);
        assert_eq!(modules(&out), expected, "{program}");
        assert!(passes(&out, program, &base), "{program}");
    }
    // TensorRT-LLM knows experts by Mixtral's names, whatever the model's are.
    let base = scratch.path().join("renamed");
    std::fs::create_dir_all(&base).expect("a directory");
    let config = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 2,
    });
    std::fs::write(base.join("config.json"), config.to_string()).expect("written");
    let mut tensors = Tensors::new();
    for number in 0..2 {
        for (name, outputs, inputs) in [("gate_proj", 6, 8), ("down_proj", 8, 6), ("up_proj", 6, 8)]
        {
            let name = format!("model.layers.0.mlp.experts.{number}.{name}.weight");
            tensors = tensors.f32(&name, &[outputs, inputs], &[0.5; 48]);
        }
    }
    tensors.save(&base.join("model.safetensors"));
    let out = scratch.path().join("tensorrt-llm");
    convert(&adapter, "tensorrt-llm", &base, &out);
    let renamed = |name: &String| name.replace("block_sparse_moe", "mlp");
    assert_eq!(modules(&out), expected.iter().map(renamed).collect());
    assert!(passes(&out, "tensorrt-llm", &base));
    // SGLang takes w1, w2 and w3 in tensors' names and for no targets.
    let text = std::fs::read(scratch.path().join("sglang/adapter_config.json")).expect("a config");
    let config: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(config["target_modules"], json!(["down_proj", "gate_proj", "up_proj"]));
}

/// q, k and v of an adapter become the base's one tensor, and `target_modules` has its name: by that PEFT finds it.
#[test]
fn joined_projections_are_targets_by_the_bases_name() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| scratch.path().join(name);
    let base = path("base");
    std::fs::create_dir_all(&base).expect("a directory");
    let config = json!({ "architectures": ["Phi3ForCausalLM"], "model_type": "phi3" });
    std::fs::write(base.join("config.json"), config.to_string()).expect("written");
    let fused = "model.layers.0.self_attn.qkv_proj";
    Tensors::new()
        .f32(&format!("{fused}.weight"), &[24, 8], &[0.5; 192])
        .save(&base.join("model.safetensors"));
    let names = ["q_proj", "k_proj", "v_proj"];
    let adapter =
        names.iter().fold(Peft::new(2, 4.0).field("target_modules", json!(names)), |a, name| {
            a.linear(&format!("model.layers.0.self_attn.{name}"), 2, &[0.5; 16], &[0.25; 16])
        });
    let adapter = adapter.save(&path("adapter"));
    convert(&adapter, "peft", &base, &path("out"));
    assert_eq!(modules(&path("out")), BTreeSet::from([fused.to_owned()]));
    assert!(passes(&path("out"), "peft", &base));
}
