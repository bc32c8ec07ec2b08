//! Extraction against what mergekit and kohya's script wrote for the same checkpoints, through the command
//! as a user would type it. Each case brings its own tolerance.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use crate::common::{fixture, lora_tool, read};
use serde_json::Value;

/// Extracts a case's adapter and hands over its facts, its directory and the output.
fn case(name: &str, output: &str, flags: &str, check: impl Fn(&Value, &Path, &Path)) {
    let directory = fixture("golden").join(name);
    let text = std::fs::read(directory.join("case.json")).expect("case.json");
    let facts: Value = serde_json::from_slice(&text).expect("JSON");
    let input = |field: &str| -> PathBuf {
        directory.join(facts["inputs"][field].as_str().expect("a path"))
    };
    let scratch = tempfile::tempdir().expect("a directory");
    let output = scratch.path().join(output);
    let mut command = lora_tool();
    command.arg("extract").arg(input("base")).arg(input("finetuned")).arg("-o").arg(&output);
    command.args(flags.split_whitespace()).assert().success();
    check(&facts, &directory, &output);
}

fn close(what: &str, found: &[f64], expected: &[f64], share: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let off = (found - expected).abs();
        assert!(off <= share * largest, "{what}[{at}] is {found}, expected {expected}");
    }
}

/// Every expected delta is the output's.
fn same_deltas(facts: &Value, directory: &Path, output: &Path) {
    let share = facts["tolerance"]["atol_rel_to_max"].as_f64().expect("a tolerance");
    let found = crate::common::dense::deltas(output);
    for (name, tensor) in read(&directory.join("expected/delta.safetensors")) {
        let Some(module) = name.strip_prefix("delta.") else { continue };
        let delta = found.get(module).expect(module);
        close(module, &delta.values, &tensor.values(), share);
    }
}

/// Tensors that mergekit stores whole are in the output, to the bit, or were never changed.
fn same_whole(directory: &Path, output: &Path) {
    let found = read(&output.join("adapter_model.safetensors"));
    let base = read(&directory.join("input/base/model.safetensors"));
    for (name, tensor) in read(&directory.join("expected/adapter_model.safetensors")) {
        if name.contains("lora_") || name.contains("lm_head") {
            continue;
        }
        let own = name.strip_prefix("base_model.model.").expect("a wrapper");
        let found = found.get(&name).unwrap_or(&base[own]);
        assert_eq!(found.bytes, tensor.bytes, "{name}");
    }
}

#[test]
fn mergekit() {
    for name in ["extract_mergekit_r4", "extract_mergekit_bf16_r4"] {
        case(name, "out", "--rank 4 --full-norms", |facts, directory, output| {
            same_deltas(facts, directory, output);
            same_whole(directory, output);
        });
        case(name, "out", "--rank 4 --exact", same_deltas);
    }
}

#[test]
fn kohya() {
    let flags = "--compat kohya --rank 4 --conv-rank 3";
    case("extract_kohya", "out.safetensors", flags, |facts, directory, output| {
        same_deltas(facts, directory, output);
        let found = read(output);
        for (module, expected) in facts["expected"]["per_module"].as_object().expect("modules") {
            let down = &found[&format!("{module}.lora_down.weight")];
            assert_eq!(Some(down.shape[0] as u64), expected["rank"].as_u64(), "{module}");
            let alpha = found[&format!("{module}.alpha")].values();
            assert_eq!(Some(alpha[0]), expected["alpha"].as_f64(), "{module}");
        }
    });
}

#[test]
fn kohya_clamps_where_that_is_asked_for() {
    let flags = "--compat kohya --rank 4 --conv-rank 3 --clamp-quantile 0.9";
    case("extract_kohya", "out.safetensors", flags, |_, _, output| {
        let tensors = read(output);
        let module = "lora_te_text_model_encoder_layers_0_mlp_fc1";
        let mut values = tensors[&format!("{module}.lora_up.weight")].values();
        values.extend(tensors[&format!("{module}.lora_down.weight")].values());
        let largest = values.iter().fold(0f64, |most, value| most.max(value.abs()));
        let held = values.iter().filter(|value| value.abs() == largest).count();
        assert!(held * 10 >= values.len(), "{held} of {}", values.len());
    });
}
