//! `check` on adapters themselves, whatever program: faults of every kind are found, and what is sound is not.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Peft, Random, fixture, lora_tool};

const RANK: usize = 4;
const Q: &str = "model.layers.0.self_attn.q_proj";
const K: &str = "model.layers.0.self_attn.k_proj";

/// Two modules of the base of `fixtures/llama`.
fn sound() -> Peft {
    let mut random = Random::new(3);
    let adapter = Peft::new(RANK, 8.0).field("target_modules", json!(["q_proj", "k_proj"]));
    let adapter = adapter.field("layers_to_transform", json!([0]));
    [(Q, 64), (K, 32)].into_iter().fold(adapter, |adapter, (name, outputs)| {
        let (down, up) = (random.values(RANK * 64, 1.0), random.values(outputs * RANK, 1.0));
        adapter.linear(name, RANK, &down, &up)
    })
}

/// The same, with values of q_proj's factor changed.
fn changed(factor: &str, change: impl Fn(usize, f32) -> f32) -> Peft {
    let mut adapter = sound();
    let name = format!("base_model.model.{Q}.{factor}.weight");
    let own = adapter.tensors.entries.iter_mut().find(|own| own.0 == name).expect("the factor");
    for (at, bytes) in own.3.chunks_exact_mut(4).enumerate() {
        let value = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
        bytes.copy_from_slice(&change(at, value).to_le_bytes());
    }
    adapter
}

/// The same without a tensor, or with it under another name.
fn renamed(name: &str, new: Option<&str>) -> Peft {
    let mut adapter = sound();
    adapter.tensors.entries.retain_mut(|own| {
        let hit = own.0.contains(name);
        own.0 = own.0.replace(name, new.unwrap_or(name));
        !hit || new.is_some()
    });
    adapter
}

/// The adapter's own findings by rule, and the exit code.
fn check(adapter: &Path) -> (Vec<String>, i32) {
    let mut command = lora_tool();
    command.arg("check").arg(adapter).args(["--json", "--against"]).arg(fixture("llama/base"));
    let done = command.output().expect("it runs");
    let report: Value = serde_json::from_slice(&done.stdout).expect("a report");
    let findings = report["findings"].as_array().expect("findings").iter();
    let own = findings.filter(|finding| finding["program"].is_null());
    let rule = |finding: &Value| finding["rule"].as_str().expect("a rule").to_owned();
    (own.map(rule).collect(), done.status.code().expect("a code"))
}

#[test]
fn faults_are_found_and_nothing_else() {
    let embedded = |name: &str, value: f32| sound().tensor(name, &[1], &[value]);
    let mut swapped = sound();
    for own in &mut swapped.tensors.entries {
        let (a, b) = (".lora_A.", ".lora_B.");
        own.0 = if own.0.contains(a) { own.0.replace(a, b) } else { own.0.replace(b, a) };
    }
    let twice = {
        let mut adapter = sound();
        let mut own = adapter.tensors.entries[0].clone();
        own.0 = own.0.replace(".weight", ".default.weight");
        adapter.tensors.entries.push(own);
        adapter
    };
    let bare = Peft { tensors: crate::common::Tensors::new(), ..sound() };
    let zero = |_, _| 0.0;
    let row = |at: usize, value: f32| if at / 64 == 1 { value * 1e3 } else { value };
    // A direction that is long in both factors is a large singular value.
    let mut dominant = changed("lora_A", row);
    let columns = changed("lora_B", |at, value| if at % RANK == 1 { value * 1e3 } else { value });
    dominant.tensors.entries[1] = columns.tensors.entries[1].clone();
    let cases: [(&str, Peft, &[&str], i32); 24] = [
        ("sound", sound(), &[], 0),
        (
            "a NaN",
            changed("lora_A", |at, v| if at == 5 { f32::NAN } else { v }),
            &["not-finite"],
            1,
        ),
        ("an infinity", changed("lora_B", |_, v| v / 0.0), &["not-finite"], 1),
        ("a dead module", changed("lora_B", zero), &["dead-modules"], 0),
        ("alpha 0", sound().field("lora_alpha", 0), &["dead-adapter"], 1),
        ("a negative alpha", sound().field("lora_alpha", -8), &[], 0),
        ("alpha without measure", sound().field("lora_alpha", 40_000), &["scale"], 1),
        ("no modules", bare, &["dead-adapter"], 1),
        (
            "an outlier row of B",
            changed("lora_B", |at, v| if at / RANK == 3 { v * 1e3 } else { v }),
            &["outlier-row"],
            1,
        ),
        ("an outlier row of A", changed("lora_A", row), &["outlier-row"], 1),
        ("a singular value", dominant, &[], 0),
        ("beyond float16", changed("lora_B", |_, v| v * 1e6), &["overflow"], 1),
        ("A for B", swapped, &["faulty-module", "faulty-module"], 1),
        ("no B", renamed("q_proj.lora_B.weight", None), &["faulty-module"], 1),
        ("no A", renamed("q_proj.lora_A.weight", None), &["faulty-module"], 1),
        ("another rank", sound().field("r", 16), &["faulty-module"], 1),
        ("another alpha", embedded(&format!("{Q}.alpha"), 2.0), &["two-alphas"], 1),
        ("the same alpha", embedded(&format!("{Q}.alpha"), 8.0), &[], 0),
        (
            "what nobody knows",
            sound().tensor("optimizer.step", &[1], &[1.0]),
            &["unknown-tensors"],
            2,
        ),
        ("a module twice", twice, &["damaged-file"], 1),
        ("a field of tomorrow", sound().field("use_brand_new", true), &["unknown-adapter"], 2),
        ("a type of none", sound().field("peft_type", Value::Null), &["damaged-file"], 1),
        (
            "no target of this name",
            sound().field("target_modules", json!(["q_proj", "k_proj", "up_proj"])),
            &["missing-modules"],
            0,
        ),
        (
            "one rank of many",
            changed("lora_B", |at, v| if at % RANK == 0 { 0.0 } else { v }),
            &[],
            0,
        ),
    ];
    for (what, adapter, rules, code) in cases {
        let scratch = tempfile::tempdir().expect("a directory");
        let (found, exit) = check(&adapter.save(&scratch.path().join("adapter")));
        assert_eq!(
            (found, exit),
            (rules.iter().map(|rule| (*rule).to_owned()).collect(), code),
            "{what}"
        );
    }
}

#[test]
fn a_damaged_file_is_an_answer() {
    let scratch = tempfile::tempdir().expect("a directory");
    let adapter = |name: &str| sound().save(&scratch.path().join(name));
    let with = |directory: PathBuf, file: &str, bytes: &[u8]| {
        std::fs::write(directory.join(file), bytes).expect("written");
        directory
    };
    let tensors = sound().tensors.bytes();
    let half = tensors.get(..tensors.len() / 2).expect("a half");
    for directory in [
        with(adapter("cut"), "adapter_model.safetensors", half),
        with(adapter("config"), "adapter_config.json", b"{'r': 4"),
    ] {
        assert_eq!(
            check(&directory),
            (vec!["damaged-file".to_owned()], 1),
            "{}",
            directory.display()
        );
    }
    // Of nothing, and of what is no adapter's file, there is no answer.
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    let pointer = with(adapter("pointer"), "adapter_model.safetensors", pointer);
    for other in [pointer, scratch.path().join("none")] {
        lora_tool().arg("check").arg(&other).assert().code(2);
    }
}
