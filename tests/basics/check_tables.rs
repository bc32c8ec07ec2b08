//! Twelve sound adapters, of which `check` says nothing, and twelve with one fault each, of which it says
//! that one thing.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use crate::common::{Peft, Random, fixture, lora_tool};
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

/// Nothing but the first of eight directions.
fn emptied(up: &mut [f32]) {
    for row in up.chunks_mut(RANK) {
        row[1..].fill(0.0);
    }
}
