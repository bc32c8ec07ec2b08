//! Differences stored whole, what no thread count changes, and what is refused by name.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use super::case::{Case, config, loha};
use crate::common::{Bench, Random, Tensors, lora_tool, read};
use serde_json::{Value, json};

#[test]
fn whole_differences_of_weights_biases_and_norms() {
    let mut case = Case::kohya(11);
    let delta = case.tensor("diff", &[6, 4, 3, 3], 0.5);
    case.check(&[6, 4, 3, 3], false, &|w| w.plus(&delta));

    let bench = Bench::new();
    let mut random = Random::new(12);
    let mut values = |count: usize| random.values(count, 0.5);
    let (weight, bias, norm) = (values(12), values(4), values(5));
    let base = Tensors::new()
        .f32("a.weight", &[4, 3], &weight)
        .f32("a.bias", &[4], &bias)
        .f32("norm.weight", &[5], &norm)
        .f32("norm.bias", &[5], &norm)
        .save(&bench.path("model.safetensors"));
    let adapter = Tensors::new()
        .f32("lora_unet_a.diff_b", &[4], &[1.0, 2.0, 3.0, 4.0])
        .f32("lora_unet_norm.w_norm", &[5], &[1.0; 5])
        .f32("lora_unet_norm.b_norm", &[5], &[2.0; 5])
        .save(&bench.path("adapter.safetensors"));
    let merged = read(&bench.merge(&base, &[&adapter], "-w 0.5 --verify"));
    let plus = |values: &[f32], by: &[f64]| -> Vec<f64> {
        values.iter().zip(by).map(|(v, by)| f64::from((f64::from(*v) + by) as f32)).collect()
    };
    assert_eq!(merged["a.weight"].values(), plus(&weight, &[0.0; 12]));
    assert_eq!(merged["a.bias"].values(), plus(&bias, &[0.5, 1.0, 1.5, 2.0]));
    assert_eq!(merged["norm.weight"].values(), plus(&norm, &[0.5; 5]));
    assert_eq!(merged["norm.bias"].values(), plus(&norm, &[1.0; 5]));
}

/// Large enough for several panels: rows made on demand, mixed outputs, lengths of columns.
#[test]
fn threads_and_ways_to_read_do_not_change_a_byte() {
    let (bench, mut random) = (Bench::new(), Random::new(31));
    let (rows, columns) = (704, 900);
    let (mut base, mut adapter) = (Tensors::new(), Tensors::new());
    for module in ["composite", "whole", "mixed", "lengths"] {
        let values = random.values(rows * columns, 0.05);
        base = base.f32(&format!("{module}.weight"), &[rows, columns], &values);
        let mut add = |part: &str, shape: &[usize]| {
            let values = random.values(shape.iter().product(), 0.1);
            let name = format!("lora_unet_{module}.{part}");
            adapter = std::mem::take(&mut adapter).f32(&name, shape, &values);
        };
        match module {
            "whole" => add("diff", &[rows, columns]),
            "mixed" => add("oft_blocks", &[3, 44, 16, 16]),
            _ => {
                add("lokr_w1", &[4, 9]);
                add("lokr_w2", &[176, 100]);
            }
        }
        if module == "lengths" {
            add("dora_scale", &[1, columns]);
        }
    }
    let base = base.save(&bench.path("model.safetensors"));
    let adapter = adapter.save(&bench.path("adapter.safetensors"));
    let merge = |options: &str| {
        let out = bench.merge(&base, &[&adapter], &format!("{options} --dtype bf16"));
        std::fs::read(out.join("model.safetensors")).expect("written")
    };
    let first = merge("--threads 1 --verify");
    for options in ["", "--threads 3", "--no-mmap"] {
        assert!(merge(options) == first, "`{options}` changes the output");
    }
}

#[test]
fn what_does_not_add_up_is_refused_by_name() {
    let cases: [(&str, &[usize], &str, &str); 3] = [
        ("oft_blocks", &[2, 4, 4], "diag-oft", "depend on the base"),
        ("hra_u", &[10, 2], "hra", "depend on the base"),
        ("miss_block", &[4, 8], "miss", "do not tell the weight's shape"),
    ];
    for (part, shape, family, reason) in cases {
        let peft = part == "hra_u" || part == "miss_block";
        let config = config(if part == "hra_u" { "HRA" } else { "MISS" }, json!({}));
        let mut case = if peft { Case::peft(33, config) } else { Case::kohya(33) };
        case.tensor(part, shape, 0.5);
        let bench = Bench::new();
        let adapter = case.save(&bench);
        let out = if peft { "out" } else { "out.safetensors" };
        for verb in ["combine", "resize"] {
            let mut command = lora_tool();
            command.arg(verb).arg(&adapter).arg("-o").arg(bench.path(out));
            if verb == "resize" {
                command.args(["--rank", "2"]);
            }
            let said = command.assert().code(2).get_output().stderr.clone();
            let said = String::from_utf8_lossy(&said);
            for expected in [family, reason, "lora-tool merge"] {
                assert!(said.contains(expected), "{part}: {expected} not in {said}");
            }
        }
        let mut command = lora_tool();
        let shown = command.args(["inspect", "--json"]).arg(&adapter).assert().success();
        let shown: Value = serde_json::from_slice(&shown.get_output().stdout).expect("JSON");
        assert_eq!(shown["items"][0]["modules"][0]["family"], family);
    }
}

#[test]
fn tensors_that_belong_to_no_family_are_faults() {
    let mut stray = Case::kohya(34);
    loha(&mut stray, (4, 2, 6));
    stray.tensor("oft_blocks", &[2, 2, 2], 0.5);
    let mut shape = Case::kohya(35);
    shape.tensor("lokr_w1", &[2, 2], 0.5);
    shape.tensor("lokr_w2_a", &[2, 2], 0.5);
    shape.tensor("lokr_w2_b", &[3, 3], 0.5);
    let mut bat = Case::peft(36, config("MISS", json!({"init_weights": "bat"})));
    bat.tensor("miss_block", &[2, 2, 2], 0.5);
    let mut unsaved = Case::peft(37, config("VERA", json!({"save_projection": false})));
    unsaved.tensor("vera_lambda_b", &[4], 0.5);
    unsaved.tensor("vera_lambda_d", &[2], 0.5);
    let mut old = Case::peft(38, config("OFT", json!({"r": 2})));
    old.tensor("oft_R.weight", &[2, 3], 0.5);
    for (case, expected) in [
        (stray, "has no such tensor"),
        (shape, "[2, 3]"),
        (bat, "MiSS (bat)"),
        (unsaved, "save_projection"),
        (old, "another one"),
    ] {
        let bench = Bench::new();
        let base = Tensors::new().f32("layer.weight", &[4, 6], &[0.5; 24]);
        let base = base.save(&bench.path("model.safetensors"));
        let said = bench.refuse(&base, &[&case.save(&bench)], "");
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn types_without_weights_are_shown_with_a_warning() {
    let bench = Bench::new();
    let mut case = Case::peft(40, config("PROMPT_TUNING", json!({})));
    case.prefix = "prompt_embeddings";
    case.tensor("weight", &[4, 8], 0.5);
    let adapter = case.save(&bench);
    let shown = lora_tool().args(["inspect", "--json"]).arg(&adapter).assert().success();
    let shown: Value = serde_json::from_slice(&shown.get_output().stdout).expect("JSON");
    let item = &shown["items"][0];
    assert_eq!(item["modules"], json!([]));
    let warning = item["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("PROMPT_TUNING") && warning.contains("virtual tokens"), "{warning}");
    lora_tool().arg("inspect").arg(&adapter).assert().success();
}
