//! Every line that `check` prints as a fix, run as it is printed: what it writes passes the check, and merges
//! to the same weights. Adapters with one thing wrong each, in front of every program of language models.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::common::{Peft, Random, Tensors, lora_tool, read};

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

fn base(directory: &Path) -> PathBuf {
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

fn whole() -> Peft {
    some(|_, _| 8)
}

/// Each with one thing that some program does not do.
fn adapters() -> Vec<(&'static str, Peft)> {
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
        ("dora without magnitudes", whole().field("use_dora", true)),
    ]
}

const PROGRAMS: [&str; 11] = [
    "vllm",
    "vllm@0.31",
    "sglang",
    "tensorrt-llm",
    "lmdeploy",
    "tgi",
    "lorax",
    "llama.cpp",
    "ollama",
    "mlx",
    "openvino",
];

fn check(adapter: &Path, program: &str, base: &Path) -> Value {
    let mut command = lora_tool();
    command.arg("check").arg(adapter).args(["--for", program, "--json", "--against"]).arg(base);
    let done = command.output().expect("it runs");
    serde_json::from_slice(&done.stdout).unwrap_or_else(|_| {
        panic!("{}: {}", adapter.display(), String::from_utf8_lossy(&done.stderr))
    })
}

/// Names of the rules that found something wrong.
fn rules(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().expect("findings").iter();
    let wrong = findings.filter(|finding| finding["severity"] != "note");
    wrong.map(|finding| finding["rule"].as_str().expect("a name").to_owned()).collect()
}

/// Runs a line as a shell does, in a directory.
fn shell(line: &str, directory: &Path) -> Output {
    let tool = PathBuf::from(lora_tool().get_program());
    let folder = tool.parent().expect("the binary's folder").to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder).chain(std::env::split_paths(&path));
    Command::new("sh")
        .args(["-c", line])
        .current_dir(directory)
        .env("PATH", std::env::join_paths(folders).expect("paths"))
        .output()
        .expect("a shell")
}

/// What a merge changes of the base.
fn update(base: &Path, adapter: &Path, out: &Path) -> BTreeMap<String, Vec<f64>> {
    let mut command = lora_tool();
    command.arg("merge").arg(base).arg(adapter).arg("--force").arg("-o").arg(out);
    let done = command.output().expect("it runs");
    assert!(
        done.status.success(),
        "{}: {}",
        adapter.display(),
        String::from_utf8_lossy(&done.stderr)
    );
    let (before, after) =
        (read(&base.join("model.safetensors")), read(&out.join("model.safetensors")));
    let change = |(name, tensor): (String, crate::common::Read)| {
        let own = tensor.values().into_iter().zip(before[&name].values()).map(|(a, b)| a - b);
        (name, own.collect())
    };
    after.into_iter().map(change).collect()
}

fn distance(a: &BTreeMap<String, Vec<f64>>, b: &BTreeMap<String, Vec<f64>>) -> f64 {
    assert!(a.keys().eq(b.keys()));
    let pairs = || a.values().flatten().zip(b.values().flatten());
    let off: f64 = pairs().map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = pairs().map(|(a, _)| a * a).sum();
    (off / norm).sqrt()
}

/// The output that a fix line names.
fn output(directory: &Path) -> PathBuf {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    let is_out =
        |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("OUT"));
    let out = paths.find(is_out).expect("an output");
    // Ollama's directory has a Modelfile beside the adapter.
    let gguf =
        out.is_dir().then(|| std::fs::read_dir(&out).expect("a directory")).and_then(|entries| {
            entries
                .map(|entry| entry.expect("an entry").path())
                .find(|path| path.extension().is_some_and(|e| e == "gguf"))
        });
    gguf.unwrap_or(out)
}

/// Rules of which some adapter here gets a fix, by program.
fn expected() -> BTreeMap<&'static str, Vec<&'static str>> {
    BTreeMap::from([
        ("llama.cpp", vec!["convention", "dora", "scale"]),
        ("lmdeploy", vec!["dora", "names", "scale", "targets"]),
        ("lorax", vec!["dora", "missing-layers", "names", "ranks", "scale"]),
        ("mlx", vec!["convention"]),
        ("ollama", vec!["alpha", "dora", "query-rows", "scale"]),
        ("openvino", vec!["dora", "scale"]),
        (
            "sglang",
            vec![
                "dora",
                "embeddings",
                "query-without-value",
                "ranks",
                "scale",
                "targets",
                "up-without-gate",
                "value-without-query",
            ],
        ),
        ("tensorrt-llm", vec!["incomplete-attention", "scale"]),
        ("tgi", vec!["dora", "missing-layers", "names", "ranks", "scale"]),
        ("vllm", vec!["config-fields", "dora", "names", "needless-rank", "rank"]),
        ("vllm@0.31", vec!["config-fields", "dora", "names", "needless-rank", "patterns", "rank"]),
    ])
}

#[test]
fn every_fix_as_printed_passes_the_check_and_merges_the_same() {
    let scratch = tempfile::tempdir().expect("a directory");
    let base = base(&scratch.path().join("base"));
    let mut mended: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (number, (what, adapter)) in adapters().into_iter().enumerate() {
        let path = adapter.save(&scratch.path().join(format!("a {number}")));
        let mut before = None;
        for program in PROGRAMS {
            let report = check(&path, program, &base);
            let found = rules(&report);
            let Some(fix) = report["programs"][0]["fix"].as_str() else { continue };
            // Of what was found and mended together once, another adapter shows nothing new.
            let known = mended.get(program);
            if known.is_some_and(|known| known.is_superset(&found)) {
                continue;
            }
            let folder = scratch.path().join("run");
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir(&folder).expect("a directory");
            let done = shell(fix, &folder);
            if !done.status.success() {
                wrong.push(format!(
                    "{what}, {program}: {fix}: {}",
                    String::from_utf8_lossy(&done.stderr)
                ));
                continue;
            }
            let out = output(&folder);
            let again = check(&out, program, &base);
            if again["answer"] != "yes" {
                wrong.push(format!("{what}, {program}: {fix}: {:?}", rules(&again)));
                continue;
            }
            let before =
                before.get_or_insert_with(|| update(&base, &path, &scratch.path().join("m")));
            let off = distance(before, &update(&base, &out, &scratch.path().join("n")));
            if off > 1e-5 {
                wrong.push(format!("{what}, {program}: {fix}: off by {off}"));
            }
            mended.entry(program).or_default().extend(found);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mended: BTreeMap<&str, Vec<String>> =
        mended.into_iter().map(|(program, rules)| (program, rules.into_iter().collect())).collect();
    let expected: BTreeMap<&str, Vec<String>> = expected()
        .into_iter()
        .map(|(program, rules)| (program, rules.into_iter().map(str::to_owned).collect()))
        .collect();
    assert_eq!(mended, expected);
}
