//! Merges that keep a base quantised: what changes is quantised again as the packages do it, or becomes plain numbers
//! beside weights that keep their bytes; and what of an update that costs.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use lora_tool::format::Dtype;
use serde_json::Value;

use crate::common::quant::{WRITTEN, adapter, base};
use crate::common::{Bench, Peft, Read, Tensors, fixture, lora_tool, read};

/// The one tensor of each base that its adapter changes and that is not quantised.
fn is_plain(name: &str) -> bool {
    ["v_proj.weight", "img_mod.lin.weight"].iter().any(|ending| name.ends_with(ending))
        || name == "model.layers.0.self_attn.q_proj.weight"
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn stdout(done: &Output) -> String {
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn what_changes_is_quantised_as_the_packages_do_and_the_rest_keeps_its_bytes() {
    let bench = Bench::new();
    for case in WRITTEN {
        let before = read(&base(case));
        let expected = read(&fixture("quant").join(case).join("requantised.safetensors"));
        let options = "--quantized requantize --min-survival 0";
        let out = bench.merge(&base(case), &[&adapter(case)], options);
        let after = read(&out);
        assert!(after.keys().eq(before.keys()), "{case}: {:?}", after.keys());
        for (name, found) in &after {
            let Some(expected) = expected.get(name) else {
                let touched = is_plain(name) && found != &before[name];
                assert!(touched || found == &before[name], "{case}: {name} changed");
                continue;
            };
            if name.contains("quant_state") {
                continue;
            }
            assert_eq!((found.dtype, &found.shape), (expected.dtype, &expected.shape), "{name}");
            let pairs = found.bytes.iter().zip(&expected.bytes);
            let wrong = pairs.filter(|(found, expected)| found != expected).count();
            if found.dtype == Dtype::F32 {
                // A sum of many magnitudes in another order.
                let near = |(a, b): (f64, f64)| (a - b).abs() <= 1e-6 * b.abs();
                let mut pairs = found.values().into_iter().zip(expected.values());
                assert!(pairs.all(near), "{case}: {name}");
                continue;
            }
            // Ties, and nested magnitudes near the middle of two numbers.
            let few = if name.ends_with("absmax") { 25 } else { 250 };
            assert!(wrong * few <= found.bytes.len(), "{case}: {name}: {wrong} bytes differ");
        }
        if base(case).is_dir() {
            let config = |directory: &Path| text(&directory.join("config.json"));
            assert_eq!(config(&out), config(&base(case)), "{case}");
        }
    }
}

#[test]
fn bytes_do_not_depend_on_threads_or_panels() {
    let bench = Bench::new();
    for case in ["bnb_nf4_nested", "gptq_v1_sym", "fp8_tensor_ct", "nvfp4_ct", "mxfp4_gptoss"] {
        for options in ["", "--rounding stochastic --rounding-seed 3", "--scales reuse"] {
            let options = format!("--quantized requantize --min-survival 0 {options}");
            let merge = |how: &str| {
                let out = bench.path(&format!("{case}-{how}"));
                let _ = std::fs::remove_dir_all(&out);
                let mut tool = lora_tool();
                tool.args(how.split(' ').take(2)).arg("merge").arg(base(case)).arg(adapter(case));
                let done = tool.args(options.split_whitespace()).arg("-o").arg(&out).output();
                let done = done.expect("it runs");
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                read(&out)
            };
            let first = merge("--threads 1");
            assert!(first == merge("--threads 3"), "{case}: {options}");
        }
    }
}

#[test]
fn verify_knows_what_a_merge_wrote() {
    let bench = Bench::new();
    for case in ["bnb_nf4_nested", "fp8_block128_ragged", "int4_sym_g32_ct"] {
        for options in ["--quantized requantize --min-survival 0", "--quantized hybrid"] {
            let out = bench.merge(&base(case), &[&adapter(case)], options);
            let mut tool = lora_tool();
            tool.arg("verify")
                .arg(&out)
                .arg("--base")
                .arg(base(case))
                .arg("--adapter")
                .arg(adapter(case));
            let done = tool.args(options.split_whitespace()).output();
            let done = done.expect("it runs");
            let said = stdout(&done) + &String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.code(), Some(0), "{case}: {options}: {said}");
        }
    }
}

#[test]
fn an_update_of_zeros_keeps_every_byte() {
    let bench = Bench::new();
    // The last four have a number for all of a tensor, which is made of all values.
    for case in [
        "int4_sym_g32_ct",
        "fp8_tensor_ct",
        "fp8_tensor_modelopt",
        "comfy_quant_fp8_new",
        "nvfp4_ct",
    ] {
        let nothing = bench.path(case);
        std::fs::create_dir(&nothing).expect("a directory");
        let mut zeros = Tensors::new();
        for entry in std::fs::read_dir(adapter(case)).expect("an adapter") {
            let from = entry.expect("an entry").path();
            let to = nothing.join(from.file_name().expect("a name"));
            if from.extension().is_none_or(|ending| ending != "safetensors") {
                std::fs::copy(&from, to).expect("a copy");
                continue;
            }
            for (name, tensor) in read(&from) {
                let is_up = name.contains("lora_B") || name.contains("lora_up");
                let bytes = if is_up { vec![0; tensor.bytes.len()] } else { tensor.bytes.clone() };
                zeros = zeros.raw(&name, tensor.dtype, &tensor.shape, &bytes);
            }
            zeros.save(&to);
            zeros = Tensors::new();
        }
        let options = "--quantized requantize --min-survival 0";
        let after = read(&bench.merge(&base(case), &[&nothing], options));
        for (name, before) in read(&base(case)) {
            assert!(after[&name] == before, "{case}: {name} changed");
        }
    }
}

/// A PEFT adapter whose update of a module is small against a step of 4 bits.
fn quiet(bench: &Bench, module: &str, (inputs, outputs): (usize, usize)) -> PathBuf {
    let values = |count: usize, scale: f32| -> Vec<f32> {
        (0..count).map(|at| ((at * 37 % 101) as f32 / 50.0 - 1.0) * scale).collect()
    };
    let (down, up) = (values(inputs, 0.01), values(outputs, 0.1));
    Peft::new(1, 1.0).linear(module, 1, &down, &up).save(&bench.path("quiet"))
}

#[test]
fn an_update_that_is_lost_is_refused_and_random_rounding_keeps_it() {
    let bench = Bench::new();
    let (case, module) = ("int4_sym_g32_ct", "model.layers.0.self_attn.q_proj");
    let adapter = quiet(&bench, module, (160, 130));
    let refused = bench.refuse(&base(case), &[&adapter], "--quantized requantize --scales reuse");
    assert!(refused.contains(module) && refused.contains("--min-survival"), "{refused}");
    let options = "--quantized requantize --scales reuse --min-survival 0 --json";
    let (_, done) = bench.run(&base(case), &[&adapter], options);
    let report: Value = serde_json::from_str(&stdout(&done)).expect("JSON");
    let gain = |report: &Value| report["survival"][0]["gain"].as_f64().expect("a share");
    assert!(gain(&report) < 0.5, "{report}");
    let options = "--quantized requantize --scales reuse --rounding stochastic --rounding-seed 1 \
                   --min-survival 0 --json";
    let (_, done) = bench.run(&base(case), &[&adapter], options);
    let report: Value = serde_json::from_str(&stdout(&done)).expect("JSON");
    assert!((gain(&report) - 1.0).abs() < 0.4, "{report}");
}

#[test]
fn what_survives_was_expected_to() {
    let bench = Bench::new();
    // 4: updates about twice as large as the scheme's own error; 1 and less: as large, and smaller.
    for weight in ["4", "1", "0.25"] {
        for (case, scales) in WRITTEN.iter().flat_map(|case| [(case, "fresh"), (case, "reuse")]) {
            let options = format!(
                "--quantized requantize --scales {scales} --min-survival 0 --json -w {weight}"
            );
            let (_, done) = bench.run(&base(case), &[&adapter(case)], &options);
            let report: Value = serde_json::from_str(&stdout(&done)).expect(case);
            let survival = report["survival"].as_array().expect("weights");
            let gain = |one: &Value| one["gain"].as_f64().expect("a share");
            let measured = survival.iter().map(gain).sum::<f64>() / survival.len() as f64;
            let found = &report["prediction"];
            let number = |key: &str| found[key].as_f64().expect("a number");
            let ratio = found["schemes"][0]["ratio"].as_f64().expect("a ratio");
            let tolerance = if ratio <= 1.0 { 0.12 } else { 0.35 };
            let away = (number("expected") - measured).abs();
            assert!(away <= tolerance, "{case} {scales} {weight}: {measured}, {found}");
            assert!(number("least_expected") <= number("expected"));
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(said.contains("of the change is expected to survive in"), "{said}");
        }
    }
    let case = "int4_sym_g32_ct";
    let said = |options: &str| {
        let (out, done) = bench.run(&base(case), &[&adapter(case)], &format!("{options} -n"));
        assert!(!out.exists());
        stdout(&done)
    };
    let nearest = said("--quantized requantize");
    assert!(nearest.contains("of the change is expected to survive in int_packed"), "{nearest}");
    let random = said("--quantized requantize --rounding stochastic");
    assert!(random.contains("about 100 %"), "{random}");
    assert!(!said("").contains("expected"));
}

#[test]
fn codes_that_changed_are_counted_not_values() {
    let bench = Bench::new();
    for (case, codes, bits) in [
        ("int4_sym_g32_ct", "weight_packed", 4),
        ("bnb_nf4_nested", "weight", 4),
        ("bnb_int8", "weight", 8),
        ("gptq_v1_sym", "qweight", 4),
        ("fp8_tensor_ct", "weight", 8),
    ] {
        let options = "--quantized requantize --min-survival 0 --json -w 0.3";
        let (out, done) = bench.run(&base(case), &[&adapter(case)], options);
        let report: Value = serde_json::from_str(&stdout(&done)).expect("JSON");
        let (before, after) = (read(&base(case)), read(&out));
        for one in report["survival"].as_array().expect("weights") {
            let name = one["name"].as_str().expect("a name");
            let name = name.strip_suffix("weight").expect("a weight").to_owned() + codes;
            let pairs = before[&name].bytes.iter().zip(&after[&name].bytes).map(|(a, b)| a ^ b);
            let differing: usize = match bits {
                8 => pairs.map(|d| usize::from(d != 0)).sum(),
                _ => pairs.map(|d| usize::from(d & 15 != 0) + usize::from(d >> 4 != 0)).sum(),
            };
            let expected = differing as f64 / (before[&name].bytes.len() * 8 / bits) as f64;
            let found = one["changed"].as_f64().expect("a share");
            assert!((found - expected).abs() < 1e-3, "{case} {name}: {found}, {expected}");
        }
    }
}

#[test]
fn hybrid_keeps_the_bytes_of_what_does_not_change() {
    let bench = Bench::new();
    for case in WRITTEN {
        let before = read(&base(case));
        let dense = read(&bench.merge(&base(case), &[&adapter(case)], ""));
        let out = bench.merge(&base(case), &[&adapter(case)], "--quantized hybrid");
        let after = read(&out);
        let plain: BTreeMap<&String, &Read> = after
            .iter()
            .filter(|(name, found)| before.get(*name) != Some(*found))
            .inspect(|(name, found)| assert_eq!(Some(*found), dense.get(*name), "{case}: {name}"))
            .collect();
        assert!(!plain.is_empty(), "{case}");
        // It can be read, and holds what the dense merge holds.
        let opened = lora_tool::weight::open(&out, lora_tool::format::Access::Map).expect(case);
        // Scales of the keys' cache stay where the scheme does.
        let mut names: Vec<&str> =
            opened.names().filter(|name| !name.ends_with(".k_scale")).collect();
        names.sort_unstable();
        assert!(names.into_iter().eq(dense.keys().map(String::as_str)), "{case}");
    }
    // k_proj is loaded as one with q_proj, which changes.
    let out =
        bench.merge(&base("int4_sym_g32_ct"), &[&adapter("int4_sym_g32_ct")], "--quantized hybrid");
    let k_proj = "model.layers.0.self_attn.k_proj";
    let after = read(&out);
    assert_eq!(after[&format!("{k_proj}.weight")].dtype, Dtype::BF16);
    let config: Value = serde_json::from_str(&text(&out.join("config.json"))).expect("JSON");
    let ignored = config["quantization_config"]["ignore"].as_array().expect("a list");
    assert!(ignored.iter().any(|name| name == k_proj), "{config}");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_written() {
    let bench = Bench::new();
    let refuse = |case: &str, options: &str| bench.refuse(&base(case), &[&adapter(case)], options);
    let said = refuse("gguf_llama_q8q4", "--quantized hybrid");
    assert!(said.contains("GGUF"), "{said}");
    let said = refuse("int4_sym_g32_ct", "--scales reuse");
    assert!(said.contains("--quantized requantize"), "{said}");
    let said = refuse("int4_sym_g32_ct", "--quantized requantize --min-survival 2");
    assert!(said.contains("from 0 to 1"), "{said}");
}

/// All files of a base, by name.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    if path.is_file() {
        return BTreeMap::from([(String::new(), std::fs::read(path).expect("a file"))]);
    }
    let entries =
        std::fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry"));
    let named = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().expect("a name");
        (name, std::fs::read(entry.path()).expect("a file"))
    };
    entries.map(named).collect()
}

#[test]
fn a_receipt_gives_the_quantised_base_back() {
    let bench = Bench::new();
    let cases = ["bnb_nf4_nested", "fp8_block128_ragged", "fp8_tensor_modelopt", "mxfp4_gptoss"];
    for case in cases {
        for mode in ["16bit", "hybrid", "requantize --min-survival 0"] {
            let word = mode.split(' ').next().expect("a word");
            let receipt = bench.path(&format!("{case}-{word}.receipt"));
            let options = format!("--quantized {mode} --receipt {}", receipt.display());
            let out = bench.merge(&base(case), &[&adapter(case)], &options);
            let back = bench.path(&format!("{case}-{word}-back"));
            let mut undo = lora_tool();
            undo.arg("undo").arg(&out).arg("--receipt").arg(&receipt).arg("-o").arg(&back);
            let done = undo.output().expect("it runs");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            assert!(files(&back) == files(&base(case)), "{case}: {mode}");
        }
    }
}
