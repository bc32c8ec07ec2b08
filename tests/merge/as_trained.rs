//! Merges into a 16-bit base as a trainer read it that kept it quantised (QLoRA).
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lora_tool::format::{Access, Dtype};
use lora_tool::weight;
use serde_json::Value;

use crate::common::quant::{adapter, base};
use crate::common::{Bench, Peft, Random, Read, Tensors, fixture, lora_tool, read};

/// Cases of the package with its default settings, and what these are called here.
const CASES: [(&str, &str); 2] = [("bnb_nf4_nested", "nf4-nested"), ("bnb_int8", "int8")];

/// QLoRA's table.
const NF4: [f64; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_1,
    -0.394_917_5,
    -0.284_441_4,
    -0.184_773_4,
    -0.091_05,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_2,
    0.440_709_8,
    0.562_617,
    0.722_956_8,
    1.0,
];

/// Floats of a sign, two bits of exponent and one more, over their largest, 12.
const FP4: [f64; 15] = [
    -1.0,
    -8.0 / 12.0,
    -0.5,
    -4.0 / 12.0,
    -0.25,
    -2.0 / 12.0,
    -0.0625 / 12.0,
    0.0,
    0.0625 / 12.0,
    2.0 / 12.0,
    0.25,
    4.0 / 12.0,
    0.5,
    8.0 / 12.0,
    1.0,
];

/// The numbers that a quantised checkpoint's weights stand for, by name.
fn numbers(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let opened = weight::open(path, Access::Map).expect("opens");
    let bytes = |name: &str| {
        let view = opened.tensor(name).expect("a tensor");
        view.all(&mut Vec::new()).expect("decodes").to_vec()
    };
    opened.names().map(|name| (name.to_owned(), bytes(name))).collect()
}

/// An adapter of one layer, which adds 1/2 to its first row.
fn small(bench: &Bench, base: &BTreeMap<String, Read>) -> (String, PathBuf) {
    let named = |(name, found): &(&String, &Read)| {
        found.shape.len() == 2 && name.contains("layers.0") && name.ends_with("v_proj.weight")
    };
    let (name, found) = base.iter().find(named).expect("a matrix");
    let (outputs, inputs) = (found.shape[0], found.shape[1]);
    let mut up = vec![0.0; outputs];
    up[0] = 0.5;
    let module = name.strip_suffix(".weight").expect("a weight");
    let adapter = Peft::new(1, 1.0).linear(module, 1, &vec![1.0; inputs], &up);
    (name.clone(), adapter.save(&bench.path("small")))
}

#[test]
fn layers_are_what_the_package_makes_of_them() {
    let bench = Bench::new();
    for (case, scheme) in CASES {
        // What the package quantised from, and what it made of it.
        let dense = bench.merge(&base(case), &[&adapter(case)], "--dtype f32");
        let again = "--quantized requantize --min-survival 0";
        let expected = numbers(&bench.merge(&base(case), &[&adapter(case)], again));
        let golden = read(&fixture("quant").join(case).join("requantised.safetensors"));
        let stored = read(&dense);
        let (touched, small) = small(&bench, &stored);
        let options = format!("--as-trained {scheme} --json");
        let (out, done) = bench.run(&dense, &[&small], &options);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let found = read(&out);
        let mut compared = 0;
        for name in golden.keys().filter(|name| name.ends_with(".weight")) {
            if *name != touched {
                compared += 1;
                assert_eq!(found[name].dtype, Dtype::F32);
                assert!(found[name].bytes == expected[name], "{case}: {name}");
            }
        }
        assert!(compared > 0, "{case}");
        // The head, the embeddings and the norms are as they were.
        for name in ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"] {
            if let Some(found) = found.get(name) {
                assert!(found == &stored[name], "{case}: {name}");
            }
        }
        let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        let report = &report["as_trained"];
        assert_eq!(report["scheme"], scheme);
        let moved = report["moved"].as_f64().expect("a share");
        assert!(moved > 0.001 && moved < 0.2, "{case}: {report}");
    }
}

#[test]
fn an_update_is_added_to_what_the_codes_stand_for() {
    let bench = Bench::new();
    let (rows, columns) = (48, 200);
    let values = Random::new(5).values(rows * columns, 0.1);
    let name = "model.layers.0.self_attn.v_proj.weight";
    let made = |dtype: Dtype| {
        let tensors = Tensors::new().float(name, dtype, &[rows, columns], &values);
        let tensors = tensors.float("lm_head.weight", dtype, &[2, columns], &values[..2 * columns]);
        tensors.save(&bench.path(&format!("base-{dtype}.safetensors")))
    };
    let (_, small) = small(&bench, &read(&made(Dtype::F32)));
    // The nearest number of the table, times the largest magnitude of every 64 elements in a row of all.
    for (scheme, table, dtype) in [
        ("nf4", &NF4[..], Dtype::F32),
        ("nf4", &NF4, Dtype::BF16),
        ("fp4", &FP4, Dtype::F32),
        ("fp4", &FP4, Dtype::F16),
    ] {
        let base = made(dtype);
        let stored = read(&base)[name].values();
        let found = &read(&bench.merge(&base, &[&small], &format!("--as-trained {scheme}")))[name];
        assert_eq!(found.dtype, dtype, "the base's own dtype");
        let tolerance = if dtype == Dtype::F32 { 1e-6 } else { 0.004 };
        for (block, (stored, found)) in stored.chunks(64).zip(found.values().chunks(64)).enumerate()
        {
            let most = stored.iter().fold(0.0f64, |most, value| most.max(value.abs()));
            for (at, (stored, found)) in stored.iter().zip(found).enumerate() {
                let added = if block * 64 + at < columns { 0.5 } else { 0.0 };
                let away = |to: f64| {
                    let numbers = table.iter().map(|number| (number * most - to).abs());
                    numbers.fold(f64::INFINITY, f64::min)
                };
                // One of the table, and none is nearer to what is stored.
                let read = found - added;
                assert!(away(read) <= tolerance, "{scheme} {at}: {read}");
                let distance = (read - stored).abs();
                assert!(distance <= away(*stored) + tolerance, "{scheme} {at}: {read}, {stored}");
            }
        }
    }
}

#[test]
fn bytes_do_not_depend_on_threads_and_verify_and_undo_know_them() {
    let bench = Bench::new();
    let dense = bench.merge(&base("bnb_int8"), &[&adapter("bnb_int8")], "--dtype bf16");
    for scheme in ["nf4-nested", "fp4-nested", "int8"] {
        let receipt = bench.path(&format!("{scheme}.receipt"));
        let options = format!("--as-trained {scheme}");
        let kept = format!("{options} --receipt {}", receipt.display());
        let out = bench.merge(&dense, &[&adapter("bnb_int8")], &kept);
        let mut tool = lora_tool();
        tool.args(["--threads", "1", "merge"]).arg(&dense).arg(adapter("bnb_int8"));
        let alone = bench.path(&format!("{scheme}-alone"));
        let done = tool.args(options.split(' ')).arg("-o").arg(&alone).output().expect("it runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(read(&out) == read(&alone), "{scheme}");
        let mut tool = lora_tool();
        tool.arg("verify").arg(&out).arg("--base").arg(&dense).arg("--adapter");
        let done = tool.arg(adapter("bnb_int8")).args(options.split(' ')).output();
        let done = done.expect("it runs");
        assert!(done.status.success(), "{scheme}: {}", String::from_utf8_lossy(&done.stderr));
        let back = bench.path(&format!("{scheme}-back"));
        let mut tool = lora_tool();
        tool.arg("undo").arg(&out).arg("--receipt").arg(&receipt).arg("-o").arg(&back);
        let done = tool.output().expect("it runs");
        assert!(done.status.success(), "{scheme}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(read(&back) == read(&dense), "{scheme}");
    }
}

#[test]
fn what_was_not_trained_so_is_refused() {
    let bench = Bench::new();
    let refuse = |base: &Path, options: &str| bench.refuse(base, &[&adapter("bnb_int8")], options);
    let said = refuse(&base("bnb_int8"), "--as-trained nf4");
    assert!(said.contains("16-bit base"), "{said}");
    let dense = bench.merge(&base("bnb_int8"), &[&adapter("bnb_int8")], "--dtype bf16");
    let said = refuse(&dense, "--as-trained nf4 --quantized hybrid");
    assert!(said.contains("leave out"), "{said}");
    let said = refuse(&dense, "--as-trained nf5");
    assert!(said.contains("nf4-nested"), "{said}");
    // What is not finite has no code.
    let values = [f32::NAN; 64];
    let spoiled = Tensors::new()
        .f32("model.layers.0.self_attn.v_proj.weight", &[8, 8], &values)
        .save(&bench.path("spoiled.safetensors"));
    let (_, small) = small(&bench, &read(&spoiled));
    let (out, done) = bench.run(&spoiled, &[&small], "--as-trained nf4");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && !out.exists() && said.contains("v_proj"), "{said}");
}
