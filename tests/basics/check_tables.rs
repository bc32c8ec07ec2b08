//! Twelve sound adapters, of which `check` says nothing, and twelve with one fault each, of which it says
//! that one thing.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use crate::common::{Peft, Random, Tensors, fixture, lora_tool};
use serde_json::{Value, json};

/// An adapter and its base, the program that is asked, further options, and the rule that finds the fault.
type Seeded = ((PathBuf, PathBuf), &'static str, &'static [&'static str], &'static str);

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

const RANK: usize = 8;

/// What is changed in the B of the first layer's `up_proj`.
type Fault = fn(&mut [f32]);

/// An adapter of every projection of both layers.
fn whole(fault: Fault) -> Peft {
    let mut random = Random::new(41);
    let leaves = PROJECTIONS.map(|(name, ..)| name.rsplit('.').next().expect("a name"));
    let mut adapter = Peft::new(RANK, 16.0).field("target_modules", json!(leaves));
    for layer in 0..2 {
        for (name, inputs, outputs) in PROJECTIONS {
            let down = random.values(RANK * inputs, 1.0);
            let mut up = random.values(outputs * RANK, 1.0);
            if (layer, name) == (0, "mlp.up_proj") {
                fault(&mut up);
            }
            adapter = adapter.linear(&format!("model.layers.{layer}.{name}"), RANK, &down, &up);
        }
    }
    adapter
}

/// An adapter in front of a program, and what is found; the flag that a server is started with is no finding.
fn findings(adapter: &Path, program: &str, base: Option<&Path>, also: &[&str]) -> Vec<Value> {
    let mut command = lora_tool();
    command.arg("check").arg(adapter).args(["--for", program, "--json"]).args(also);
    if let Some(base) = base {
        command.arg("--against").arg(base);
    }
    let done = command.output().expect("it runs");
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let found = report["findings"].as_array().expect("findings").iter();
    found.filter(|finding| finding["rule"] != "needs").cloned().collect()
}

fn converted(adapter: &Path, program: &str, base: &Path, out: PathBuf) -> PathBuf {
    let mut command = lora_tool();
    command.arg("convert").arg(adapter).args(["--for", program, "--reference"]).arg(base);
    command.arg("-o").arg(&out).assert().success();
    out
}

#[test]
fn nothing_is_said_of_twelve_sound_adapters() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| scratch.path().join(name);
    let base = fixture("llama/base");
    let case = |name: &str| fixture("serving").join(name);
    let sound = whole(|_| ()).save(&path("sound"));
    let folded = whole(|_| ()).field("use_rslora", true).save(&path("rslora"));
    let flux2 = case("11_comfyui_flux2_diffusers_names");
    let ltx2 = case("10_diffusers_ltx2_alpha_ignored");
    let (gguf, mlx) = (
        converted(&folded, "llama.cpp", &base, path("l.gguf")),
        converted(&folded, "mlx", &base, path("mlx")),
    );
    let flux2_published = converted(
        &flux2.join("adapter.safetensors"),
        "comfyui",
        &flux2.join("base"),
        path("f.safetensors"),
    );
    let ltx2_folded = converted(
        &ltx2.join("adapter.safetensors"),
        "diffusers",
        &ltx2.join("base"),
        path("x.safetensors"),
    );
    let wrapped = case("01_vllm_text_only_names_on_qwen3vl");
    let stacked = case("05_vllm_stacks_on_gpt_oss");
    let sound_adapters: [(PathBuf, &str, Option<PathBuf>); 12] = [
        (sound, "vllm", Some(base.clone())),
        (fixture("llama/style"), "sglang", Some(base.clone())),
        (fixture("llama/task"), "peft", Some(base.clone())),
        (folded, "tgi", Some(base.clone())),
        (gguf, "llama.cpp", Some(base.clone())),
        (mlx, "mlx", Some(base)),
        (fixture("golden/resize_kohya_fixed/input/lora.safetensors"), "comfyui", None),
        (flux2_published, "comfyui", Some(flux2.join("base"))),
        (ltx2_folded, "diffusers", Some(ltx2.join("base"))),
        (wrapped.join("adapter"), "vllm", Some(wrapped.join("base"))),
        (stacked.join("adapter"), "vllm", Some(stacked.join("base"))),
        (fixture("golden/merge_dora/input/adapter"), "peft", None),
    ];
    let found: Vec<_> = sound_adapters
        .iter()
        .map(|(adapter, program, base)| {
            (adapter, program, findings(adapter, program, base.as_deref(), &[]))
        })
        .filter(|(.., found)| !found.is_empty())
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn one_thing_is_said_of_each_of_twelve_faults() {
    let scratch = tempfile::tempdir().expect("a directory");
    let base = fixture("llama/base");
    let peft = |name: &str, adapter: Peft| adapter.save(&scratch.path().join(name));
    let case = |name: &str, file: &str| {
        let case = fixture("serving").join(name);
        (case.join(file), case.join("base"))
    };
    let own = |name: &str, adapter: Peft| (peft(name, adapter), base.clone());
    let lost = whole(|_| ()).linear("model.layers.9.self_attn.q_proj", 8, &[1.0; 512], &[1.0; 512]);
    let head = whole(|_| ()).field("modules_to_save", json!(["lm_head"])).tensor(
        "lm_head.weight",
        &[48, 64],
        &[1.0; 48 * 64],
    );
    let one_alpha = json!({ "up_proj": 64 });
    let faults: [Seeded; 12] = [
        (own("dead", whole(|up| up.fill(0.0))), "peft", &[], "dead-modules"),
        (own("outlier", whole(|up| up[3 * RANK] = 500.0)), "peft", &[], "outlier-row"),
        (own("nan", whole(|up| up[5] = f32::NAN)), "vllm", &[], "not-finite"),
        (own("empty", whole(emptied)), "peft", &[], "empty-rank"),
        (case("10_diffusers_ltx2_alpha_ignored", "adapter.safetensors"), "diffusers", &[], "alpha"),
        (own("rslora", whole(|_| ()).field("use_rslora", true)), "sglang", &[], "scale"),
        (
            own("alpha", whole(|_| ()).field("alpha_pattern", one_alpha)),
            "vllm@0.31",
            &[],
            "patterns",
        ),
        (case("12_peft_vlm_names_on_text_model", "adapter"), "peft", &[], "names"),
        (case("04_vllm_peft_stacks_on_qwen3_moe", "adapter"), "vllm", &[], "stacked-experts"),
        (own("lost", lost), "vllm", &[], "names"),
        (own("rank", whole(|_| ())), "vllm", &["--max-rank", "4"], "max-rank"),
        (own("head", head), "vllm", &[], "replaced"),
    ];
    let expected = faults.each_ref().map(|(.., rule)| vec![(*rule).to_owned()]);
    let found = faults.map(|((adapter, base), program, also, _)| {
        let found = findings(&adapter, program, Some(&base), also);
        let rule = |finding: &Value| finding["rule"].as_str().expect("a name").to_owned();
        found.iter().map(rule).collect::<Vec<_>>()
    });
    assert_eq!(found, expected);
}

/// A file of pictures' factors, sixteen outputs and inputs.
fn picture(path: &Path, module: &str, ends: [&str; 2], also: &[(&str, &[usize])]) -> PathBuf {
    let mut random = Random::new(17);
    let mut tensors = Tensors::new()
        .f32(&format!("{module}{}", ends[0]), &[4, 16], &random.values(64, 1.0))
        .f32(&format!("{module}{}", ends[1]), &[16, 4], &random.values(64, 1.0));
    for (name, shape) in also {
        let count = shape.iter().product();
        tensors = tensors.f32(&format!("{module}{name}"), shape, &random.values(count, 1.0));
    }
    tensors.save(path)
}

const NEW: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];
const OLD: [&str; 2] = [".lora_down.weight", ".lora_up.weight"];
const FLUX: &str = "lora_unet_double_blocks_0_img_mod_lin";

/// Later families and programs: what each of them loads, and nothing is said of.
#[test]
fn nothing_is_said_of_twelve_more() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = |name: &str, module: &str, ends, also: &[(&str, &[usize])]| {
        picture(&scratch.path().join(format!("{name}.safetensors")), module, ends, also)
    };
    let base = fixture("llama/base");
    let peft = |name: &str, adapter: Peft| adapter.save(&scratch.path().join(name));
    let target = |program: &str, name: &str, adapter: &Path| {
        converted(adapter, program, &base, scratch.path().join(name))
    };
    let folded = peft("rslora", whole(|_| ()).field("use_rslora", true));
    let dora = fixture("golden/merge_dora/input/adapter");
    let lokr = file("lokr", FLUX, [".lokr_w1_a", ".lokr_w1_b"], &[(".lokr_w2", &[2, 2])]);
    let sound: [(PathBuf, &str, Option<&Path>); 12] = [
        (target("sglang", "s", &folded), "sglang", Some(&base)),
        (target("tensorrt-llm", "t", &folded), "tensorrt-llm", Some(&base)),
        (target("lmdeploy", "l", &folded), "lmdeploy", Some(&base)),
        (target("lorax", "x", &folded), "lorax", Some(&base)),
        (target("openvino", "o", &folded), "openvino", Some(&base)),
        (target("ollama", "ol", &folded).join("adapter.gguf"), "ollama", Some(&base)),
        (fixture("golden/merge_loha/input/adapter"), "peft", None),
        (dora, "peft", None),
        (lokr, "invokeai", None),
        (file("kohya", FLUX, OLD, &[]), "forge", None),
        (
            file("own", "transformer.single_transformer_blocks.0.attn.to_q", NEW, &[]),
            "nunchaku",
            None,
        ),
        (
            file("wan", "diffusion_model.blocks.0.self_attn.q", NEW, &[]),
            "stable-diffusion.cpp",
            None,
        ),
    ];
    for (adapter, program, base) in sound {
        let found = findings(&adapter, program, base, &[]);
        assert!(found.is_empty(), "{program} {}: {found:#?}", adapter.display());
    }
}

/// A file of which one tensor is gone, or has another shape.
fn damaged(
    path: &Path,
    change: impl Fn(&mut Vec<(String, ::lora_tool::format::Dtype, Vec<usize>, Vec<u8>)>),
) -> PathBuf {
    let mut adapter = whole(|_| ());
    change(&mut adapter.tensors.entries);
    adapter.save(path)
}

/// Twelve further faults, of other kinds and in front of other programs.
#[test]
fn one_thing_is_said_of_each_of_twelve_more_faults() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| scratch.path().join(name);
    let base = fixture("llama/base");
    let own = |name: &str, adapter: Peft| (adapter.save(&path(name)), base.clone());
    let broken = |adapter: PathBuf| (adapter, base.clone());
    let pair = damaged(&path("pair"), |entries| {
        entries.remove(1);
    });
    let wide = named_module("model.layers.0.self_attn.q_proj", 32, 64);
    let swapped = damaged(&path("swapped"), |entries| {
        let [a, b] = [entries[0].0.clone(), entries[1].0.clone()];
        (entries[0].0, entries[1].0) = (b, a);
    });
    let all_dead = named_module("model.layers.0.self_attn.q_proj", 64, 64);
    let all_dead = {
        let mut adapter = all_dead;
        adapter.tensors.entries[1].3.fill(0);
        adapter
    };
    let bare = {
        let mut adapter = whole(|_| ());
        for entry in &mut adapter.tensors.entries {
            entry.0 = entry.0.replacen("base_model.model.", "", 1);
        }
        adapter
    };
    let stray = whole(|_| ()).tensor("brand.new", &[2], &[1.0, 2.0]);
    let infinite = whole(|up| up[9] = f32::INFINITY);
    let faults: [Seeded; 12] = [
        (broken(pair), "peft", &[], "faulty-module"),
        (own("rank", whole(|_| ()).field("r", 4)), "vllm", &[], "faulty-module"),
        (own("shape", wide), "peft", &[], "shapes"),
        (broken(swapped), "peft", &[], "faulty-module"),
        (own("magnitudes", whole(|_| ()).field("use_dora", true)), "tgi", &[], "magnitudes"),
        (own("dead", all_dead), "vllm", &[], "dead-adapter"),
        (own("bare", bare), "peft", &[], "tensor-names"),
        (own("stray", stray), "peft", &[], "unknown-tensors"),
        (own("infinite", infinite), "sglang", &[], "not-finite"),
        (
            own("pissa", whole(|_| ()).field("init_lora_weights", "pissa")),
            "vllm",
            &[],
            "initialisation",
        ),
        (own("bias", whole(|_| ()).field("bias", "lora_only")), "vllm", &[], "bias-field"),
        (
            own("alphas", whole(|_| ()).field("alpha_pattern", json!({ "up_proj": 64 }))),
            "lmdeploy",
            &[],
            "scale",
        ),
    ];
    for ((adapter, base), program, also, rule) in faults {
        let found = findings(&adapter, program, Some(&base), also);
        let found: Vec<&str> =
            found.iter().filter_map(|finding| finding["rule"].as_str()).collect();
        let same = !found.is_empty() && found.iter().all(|found| *found == rule);
        assert!(same, "{program} {}: {found:?}, not {rule}", adapter.display());
    }
}

/// One module of these outputs and inputs.
fn named_module(name: &str, outputs: usize, inputs: usize) -> Peft {
    let mut random = Random::new(5);
    let (down, up) = (random.values(RANK * inputs, 1.0), random.values(outputs * RANK, 1.0));
    Peft::new(RANK, 16.0).linear(name, RANK, &down, &up)
}

/// Versions out of range, what is no adapter, a GGUF adapter, an unknown layout, and a base that is another model's.
#[test]
fn what_is_not_known_is_never_right() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| scratch.path().join(name);
    let base = fixture("llama/base");
    let adapter = whole(|_| ()).save(&path("whole"));
    let code = |adapter: &Path, program: &str, base: Option<&Path>| {
        let mut command = lora_tool();
        command.arg("check").arg(adapter).args(["--for", program, "--json"]);
        if let Some(base) = base {
            command.arg("--against").arg(base);
        }
        command.output().expect("it runs").status.code()
    };
    for program in ::lora_tool::ops::check::programs() {
        for version in ["0.0.1", "9999"] {
            assert_ne!(
                code(&adapter, &format!("{program}@{version}"), None),
                Some(0),
                "{program}@{version}"
            );
        }
    }
    for version in ["vllm@0.99", "sglang@0.4", "peft@0.99", "lmdeploy@2030", "tgi@2020"] {
        assert_eq!(code(&adapter, version, None), Some(2), "{version}");
    }
    for asked in ["vllm@newest", "nobody", "nobody@1", "vllm@"] {
        assert_eq!(code(&adapter, asked, None), Some(2), "{asked}");
    }
    // A model, a text, nothing at all.
    std::fs::write(path("text.safetensors"), "no tensors").expect("written");
    for other in [base.join("model.safetensors"), path("text.safetensors"), path("nowhere")] {
        assert_eq!(code(&other, "vllm", None), Some(2), "{}", other.display());
    }
    let gguf = converted(&adapter, "llama.cpp", &base, path("a.gguf"));
    assert_eq!(code(&gguf, "llama.cpp", Some(&base)), Some(0));
    assert_eq!(code(&gguf, "vllm", None), Some(1));
    // Every module of another model's is refused or passed over; no program has a yes for it.
    let lost = named_module("model.brand_new.0.mixer.to_z", 64, 64).save(&path("lost"));
    let programs =
        ["vllm", "sglang", "lmdeploy", "tgi", "lorax", "peft", "llama.cpp", "ollama", "mlx"];
    for program in programs.into_iter().chain(["tensorrt-llm", "openvino"]) {
        assert_ne!(code(&lost, program, Some(&base)), Some(0), "{program}");
    }
}

/// Nothing but the first of eight directions.
fn emptied(up: &mut [f32]) {
    for row in up.chunks_mut(RANK) {
        row[1..].fill(0.0);
    }
}
