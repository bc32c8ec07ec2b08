//! Merges of a 16-bit base that are quantised once, as a quantised checkpoint of the same model is.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use lora_tool::format::{Access, Dtype};
use lora_tool::weight;
use serde_json::Value;

use crate::common::quant::{WRITTEN, adapter, base};
use crate::common::{Bench, Peft, Random, Read, Tensors, lora_tool, read};

/// The numbers that a checkpoint's weights stand for, by name.
fn numbers(path: &Path) -> Vec<(String, Read)> {
    let opened = weight::open(path, Access::Map).expect("opens");
    let of = |name: &str| {
        let view = opened.tensor(name).expect("a tensor");
        let bytes = view.all(&mut Vec::new()).expect("decodes").to_vec();
        Read { dtype: view.spec.dtype, shape: view.spec.shape.clone(), bytes }
    };
    opened.names().map(|name| (name.to_owned(), of(name))).collect()
}

/// The model of a quantised case before it was quantised: its numbers, each moved by up to `noise` of the largest.
fn original(bench: &Bench, case: &str, noise: f32) -> PathBuf {
    let (mut random, mut tensors) = (Random::new(7), Tensors::new());
    for (name, found) in numbers(&base(case)) {
        // Scales of the keys' cache belong to the scheme.
        if name.ends_with(".k_scale") {
            continue;
        }
        tensors = match found.dtype {
            Dtype::F32 | Dtype::BF16 | Dtype::F16 => {
                let values = found.values();
                let most = values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
                let noise = noise * most as f32;
                let values = values.into_iter();
                let moved: Vec<f32> = values.map(|v| v as f32 + random.value(noise)).collect();
                tensors.float(&name, found.dtype, &found.shape, &moved)
            }
            dtype => tensors.raw(&name, dtype, &found.shape, &found.bytes),
        };
    }
    if base(case).is_file() {
        return tensors.save(&bench.path(&format!("{case}-original.safetensors")));
    }
    let directory = bench.path(&format!("{case}-original"));
    std::fs::create_dir_all(&directory).expect("a directory");
    tensors.save(&directory.join("model.safetensors"));
    if let Ok(text) = std::fs::read(base(case).join("config.json")) {
        let mut config: Value = serde_json::from_slice(&text).expect("JSON");
        let fields = config.as_object_mut().expect("an object");
        for key in ["quantization_config", "quantization", "compression_config"] {
            fields.remove(key);
        }
        std::fs::write(directory.join("config.json"), config.to_string()).expect("written");
    }
    directory
}

fn json(done: &std::process::Output) -> Value {
    serde_json::from_slice(&done.stdout).expect("JSON")
}

#[test]
fn it_has_the_form_of_its_sibling_and_the_numbers_of_one_quantisation() {
    let bench = Bench::new();
    for case in WRITTEN {
        let original = original(&bench, case, 0.0);
        let like = format!("--quantize-like {} --min-survival 0", base(case).display());
        let found = bench.merge(&original, &[&adapter(case)], &like);
        let again = "--quantized requantize --min-survival 0";
        let again = read(&bench.merge(&base(case), &[&adapter(case)], again));
        let (sibling, once) = (read(&base(case)), read(&found));
        assert!(once.keys().eq(sibling.keys()), "{case}: {:?}", once.keys());
        for (name, tensor) in &once {
            let expected = &sibling[name];
            if !name.contains("quant_state") {
                assert_eq!((tensor.dtype, &tensor.shape), (expected.dtype, &expected.shape));
            }
            // What the adapter touches is the same sum, quantised the same way.
            if &again[name] != expected {
                assert!(tensor == &again[name], "{case}: {name}");
            }
        }
        if base(case).is_dir() {
            let config = |directory: &Path| std::fs::read(directory.join("config.json"));
            let (found, expected) = (config(&found), config(&base(case)));
            assert_eq!(found.expect("a config"), expected.expect("a config"), "{case}");
        }
    }
}

#[test]
fn an_update_that_quantising_again_would_lose_survives() {
    let bench = Bench::new();
    for case in ["int4_sym_g32_ct", "bnb_nf4_nested", "awq_gemm", "mlx_q4_g64", "gptq_v1_sym"] {
        // The numbers before they were put on the grid that the quantised base lies on.
        let original = original(&bench, case, 0.1);
        let numbers = numbers(&original);
        let (name, weight) = numbers
            .iter()
            .filter(|(name, found)| found.shape.len() == 2 && name.contains("layers"))
            .max_by_key(|(_, found)| found.bytes.len())
            .expect("a matrix");
        let (outputs, inputs) = (weight.shape[0], weight.shape[1]);
        let mut random = Random::new(3);
        let (down, up) = (random.values(2 * inputs, 0.05), random.values(2 * outputs, 0.05));
        let module = name.strip_suffix(".weight").expect("a weight");
        let adapter = Peft::new(2, 2.0).linear(module, 2, &down, &up).save(&bench.path("quiet"));
        let gain = |options: &str, base: &Path| {
            let (_, done) = bench.run(base, &[&adapter], options);
            json(&done)["survival"][0]["gain"].as_f64().expect("a share")
        };
        let like = format!("--json --min-survival 0 --quantize-like {}", base(case).display());
        let once = gain(&like, &original);
        let reused = gain(&format!("{like} --scales reuse"), &original);
        let again =
            gain("--json --quantized requantize --scales reuse --min-survival 0", &base(case));
        assert!((once - 1.0).abs() < 0.1, "{case}: {once}");
        assert!((reused - 1.0).abs() < 0.15, "{case}: {reused}");
        assert!(again < 0.6, "{case}: {again}");
    }
}

#[test]
fn a_gguf_sibling_gives_every_tensor_its_type() {
    let bench = Bench::new();
    let (file, adapter) = (base("gguf_llama_q8q4"), adapter("gguf_llama_q8q4"));
    let (out, again) = (bench.path("once.gguf"), bench.path("again.gguf"));
    let options = "--no-provenance --types keep --min-survival 0 -o";
    let like = format!("--quantize-like {} {options} {}", file.display(), out.display());
    let (_, done) = bench.run(&file, &[&adapter], &like);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    bench.merge(&file, &[&adapter], &format!("{options} {}", again.display()));
    // These types lie on their own grid, so that what nothing touches is the same once more.
    assert!(std::fs::read(out).expect("a file") == std::fs::read(again).expect("a file"));
}

#[test]
fn verify_knows_it() {
    let bench = Bench::new();
    for case in ["bnb_nf4_nested", "fp8_block128_ragged", "int4_sym_g32_ct"] {
        let original = original(&bench, case, 0.01);
        let like = format!("--quantize-like {} --min-survival 0", base(case).display());
        let out = bench.merge(&original, &[&adapter(case)], &like);
        let mut tool = lora_tool();
        tool.arg("verify").arg(&out).arg("--base").arg(&original);
        tool.arg("--adapter").arg(adapter(case)).args(like.split_whitespace());
        let done = tool.output().expect("it runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "{case}: {said}");
    }
}

#[test]
fn what_is_no_sibling_is_refused() {
    let bench = Bench::new();
    let case = "int4_sym_g32_ct";
    let refuse = |like: &Path, options: &str| {
        let original = original(&bench, case, 0.0);
        let options = format!("--quantize-like {} {options}", like.display());
        bench.refuse(&original, &[&adapter(case)], &options)
    };
    let said = refuse(&base("bnb_int8"), "");
    assert!(said.contains("in the quantised checkpoint"), "{said}");
    let said = refuse(&base("comfy_quant_fp8_new"), "");
    assert!(said.contains("not of this base"), "{said}");
    let said = refuse(&original(&bench, case, 0.0), "");
    assert!(said.contains("is not quantised"), "{said}");
    let said = refuse(&base("gguf_llama_q8q4"), "");
    assert!(said.contains("convert_hf_to_gguf.py"), "{said}");
    let said = refuse(&base(case), "--dtype bf16");
    assert!(said.contains("leave out"), "{said}");
    let receipt = format!("--receipt {}", bench.path("receipt").display());
    let said = refuse(&base(case), &receipt);
    assert!(said.contains("keep the base"), "{said}");
}
