//! Hybrids whose changed weights become codes of 8 bits beside others that keep their bytes.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use lora_tool::format::{Access, Checkpoint, Dtype};
use lora_tool::weight;
use serde_json::Value;

use crate::common::quant::{adapter, base};
use crate::common::{Bench, lora_tool, read};

/// The numbers that a checkpoint's weights stand for, by name, with the length of their rows.
fn numbers(path: &Path) -> BTreeMap<String, (Vec<f32>, usize)> {
    let opened = weight::open(path, Access::Map).expect("opens");
    let names = opened.names().map(str::to_owned);
    let of = |name: &String| {
        let view = opened.tensor(name).expect("a tensor");
        let bytes = view.all(&mut Vec::new()).expect("decodes").to_vec();
        let columns = view.spec.shape.last().copied().unwrap_or(1);
        let values = match view.spec.dtype {
            Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            _ => Vec::new(),
        };
        (values, columns)
    };
    names.map(|name| (name.clone(), of(&name))).collect()
}

#[test]
fn what_changes_has_eight_bits_and_the_rest_keeps_its_bytes() {
    let bench = Bench::new();
    for (case, touched) in [
        ("int4_sym_g32_ct", "int8"),
        ("int4_sym_g32_ct", "fp8"),
        ("nvfp4_ct", "fp8"),
        ("mlx_q4_g64", "int8"),
    ] {
        let options = format!("--quantized hybrid --touched {touched}");
        let (out, done) = bench.run(&base(case), &[&adapter(case)], &format!("{options} --json"));
        assert!(done.status.success(), "{case}: {}", String::from_utf8_lossy(&done.stderr));
        let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        let survival = report["survival"].as_array().expect("weights");
        assert!(survival.iter().all(|one| one["gain"].as_f64() > Some(0.95)), "{case}: {report}");
        let dense = numbers(&bench.merge(&base(case), &[&adapter(case)], "--dtype f32"));
        let (before, found) = (numbers(&base(case)), numbers(&out));
        // Scales of the keys' cache stay where the scheme does.
        let names = found.keys().filter(|name| !name.ends_with(".k_scale"));
        assert!(names.eq(dense.keys()), "{case}: {:?}", found.keys());
        let mut changed = 0;
        for (name, (values, columns)) in found.iter().filter(|(_, (values, _))| !values.is_empty())
        {
            if values == &before[name].0 {
                continue;
            }
            changed += 1;
            for (found, dense) in values.chunks(*columns).zip(dense[name].0.chunks(*columns)) {
                let most = dense.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                // Half a step of 255 over twice the largest, whose own code a rounded scale may cut off by one;
                // of floats half of their last digit.
                let near = |(found, dense): (&f32, &f32)| {
                    // MLX rounds the scales and the ends of 255 steps too.
                    let step = if case == "mlx_q4_g64" {
                        most / 30.0
                    } else if touched == "int8" {
                        most / 126.0
                    } else {
                        dense.abs() / 8.0 + most / 1e4
                    };
                    let is_end = touched == "int8" && dense.abs() > 0.98 * most;
                    (found - dense).abs() <= if is_end { 1.05 * step } else { 0.51 * step }
                };
                assert!(found.iter().zip(dense).all(near), "{case} {touched}: {name}");
            }
        }
        assert!(changed > 1, "{case}: {changed}");
        let stored = (read(&base(case)), read(&out));
        let kept = stored.1.iter().filter(|(name, tensor)| stored.0.get(*name) == Some(*tensor));
        assert!(kept.count() > 3, "{case}");
        let text = std::fs::read_to_string(out.join("config.json")).expect("a config");
        let config: Value = serde_json::from_str(&text).expect("JSON");
        let module = "model.layers.0.self_attn.q_proj";
        if case == "mlx_q4_g64" {
            assert!(config["quantization"][module]["bits"] == 8, "{config}");
        } else {
            let group = &config["quantization_config"]["config_groups"]["group_1"];
            let targets = group["targets"].as_array().expect("modules");
            assert!(targets.iter().any(|target| target == module), "{config}");
            assert_eq!(group["weights"]["num_bits"], 8);
            let mixed = config["quantization_config"]["format"] == "mixed-precision";
            assert_eq!(mixed, touched == "fp8", "{config}");
        }
        let mut tool = lora_tool();
        tool.arg("verify").arg(&out).arg("--base").arg(base(case)).arg("--adapter");
        let done = tool.arg(adapter(case)).args(options.split(' ')).output().expect("it runs");
        assert!(done.status.success(), "{case}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn containers_without_a_type_per_weight_are_refused() {
    let bench = Bench::new();
    let refuse = |case: &str, options: &str| bench.refuse(&base(case), &[&adapter(case)], options);
    for (case, touched) in
        [("bnb_nf4_nested", "int8"), ("gptq_v1_sym", "fp8"), ("fp8_block128_ragged", "int8")]
    {
        let said = refuse(case, &format!("--quantized hybrid --touched {touched}"));
        assert!(said.contains("not known to take") && said.contains(touched), "{said}");
    }
    let said = refuse("int4_sym_g32_ct", "--quantized hybrid --touched q8_0");
    assert!(said.contains("--types q8_0"), "{said}");
    // What ModelOpt has in 8 bits rounds activations too, by a scale of its own.
    for touched in ["int8", "fp8"] {
        let said = refuse("nvfp4_modelopt", &format!("--quantized hybrid --touched {touched}"));
        assert!(said.contains("leave out --touched for 16-bit numbers"), "{said}");
    }
    let said = refuse("int4_sym_g32_ct", "--quantized hybrid --touched int8 --scales reuse");
    assert!(said.contains("leave out --scales reuse"), "{said}");
    let said = refuse("int4_sym_g32_ct", "--touched int8");
    assert!(said.contains("--quantized hybrid"), "{said}");
}

/// What describes a layer of a ComfyUI file, in a tensor or in the header.
fn format_of(file: &Path, module: &str) -> String {
    let bytes = match read(file).get(&format!("{module}.comfy_quant")) {
        Some(own) => own.bytes.clone(),
        None => {
            let header =
                Checkpoint::open(file, Access::Map).expect("opens").shards[0].header.clone();
            let text = &header.metadata.expect("metadata")["_quantization_metadata"];
            let all: Value = serde_json::from_str(text).expect("JSON");
            all["layers"][module].to_string().into_bytes()
        }
    };
    let settings: Value = serde_json::from_slice(&bytes).expect("JSON");
    settings["format"].as_str().expect("a format").to_owned()
}

#[test]
fn layers_of_comfyui_each_say_what_they_are() {
    let bench = Bench::new();
    for (case, touched, format) in [
        ("comfy_nvfp4", "fp8", "float8_e4m3fn"),
        ("comfy_nvfp4", "int8", "int8_tensorwise"),
        ("comfy_mxfp8", "int8", "int8_tensorwise"),
        ("comfy_metadata_e5m2", "int8", "int8_tensorwise"),
    ] {
        let options = format!("--quantized hybrid --touched {touched}");
        let out = bench.merge(&base(case), &[&adapter(case)], &options);
        let (before, after) = (read(&base(case)), read(&out));
        let dense = numbers(&bench.merge(&base(case), &[&adapter(case)], "--dtype f32"));
        let found = numbers(&out);
        assert!(found.keys().eq(dense.keys()), "{case}: {:?}", found.keys());
        for module in ["double_blocks.0.img_attn.proj", "double_blocks.0.img_mlp.0"] {
            let name = format!("{module}.weight");
            assert_eq!(format_of(&out, module), format, "{case}: {module}");
            let scale = &after[&format!("{name}_scale")];
            let (rows, dtype) = match touched {
                "fp8" => (vec![], Dtype::F8_E4M3),
                _ => (vec![found[&name].0.len() / found[&name].1, 1], Dtype::I8),
            };
            assert_eq!((after[&name].dtype, scale.dtype), (dtype, Dtype::F32), "{case}: {name}");
            assert_eq!(scale.shape, rows, "{case}: {name}");
            assert!(!after.contains_key(&format!("{name}_scale_2")), "{case}: {name}");
            let (found, dense) = (&found[&name].0, &dense[&name].0);
            let most = dense.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            let near = |(found, dense): (&f32, &f32)| {
                (found - dense).abs()
                    <= if touched == "fp8" { dense.abs() / 15.0 } else { 0.0 } + most / 200.0
            };
            assert!(found.iter().zip(dense).all(near), "{case}: {name}");
        }
        let kept = "double_blocks.0.txt_mlp.0";
        assert_eq!(format_of(&out, kept), format_of(&base(case), kept), "{case}");
        for (name, tensor) in before.iter().filter(|(name, _)| name.starts_with(kept)) {
            assert!(&after[name] == tensor, "{case}: {name}");
        }
        let mut tool = lora_tool();
        tool.arg("verify").arg(&out).arg("--base").arg(base(case)).arg("--adapter");
        let done = tool.arg(adapter(case)).args(options.split(' ')).output().expect("it runs");
        assert!(done.status.success(), "{case}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn what_has_eight_bits_of_that_kind_is_quantised_again() {
    let bench = Bench::new();
    for (case, touched) in [
        ("fp8_block128_ragged", "fp8"),
        ("fp8_tensor_modelopt", "fp8"),
        ("comfy_scaled_fp8_old", "fp8"),
        ("int8_channel_ct", "int8"),
        ("bnb_int8", "int8"),
    ] {
        let merge = |options: &str| bench.merge(&base(case), &[&adapter(case)], options);
        let out = merge(&format!("--quantized hybrid --touched {touched}"));
        let again = merge("--quantized requantize --min-survival 0");
        assert!(read(&out) == read(&again), "{case}");
        if base(case).is_dir() {
            let config =
                |of: &Path| std::fs::read_to_string(of.join("config.json")).expect("a config");
            assert_eq!(config(&out), config(&base(case)), "{case}");
        }
    }
}
