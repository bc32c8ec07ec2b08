//! Adapters out of checkpoints: what was merged comes back, errors are the true ones, nothing differs that
//! should not.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use crate::common::dense::{Dense, deltas, relative_error};
use crate::common::made::{How, made};
use crate::common::refusal::{Scene, tree};
use crate::common::{Bench, Random, Tensors, lora_tool, read};
use lora_tool::format::Dtype;
use serde_json::Value;

const Q: &str = "model.layers.0.q_proj";
const K: &str = "model.layers.1.k_proj";

/// A base of two layers and an embedding, weights up to `size`.
fn base(dtype: Dtype, size: f32) -> Tensors {
    let mut random = Random::new(3);
    let mut values = |count: usize| random.values(count, size);
    Tensors::new()
        .float("model.embed_tokens.weight", dtype, &[40, 96], &values(40 * 96))
        .float(&format!("{Q}.weight"), dtype, &[128, 96], &values(128 * 96))
        .float(&format!("{Q}.bias"), dtype, &[128], &values(128))
        .float(&format!("{K}.weight"), dtype, &[96, 160], &values(96 * 160))
        .float("model.norm.weight", dtype, &[96], &values(96))
}

/// Runs `extract`, which must succeed; its report.
fn extract(base: &Path, tuned: &Path, output: &Path, options: &str) -> Value {
    let mut command = lora_tool();
    command.arg("extract").args([base, tuned]).arg("-o").arg(output).arg("--json");
    let done = command.args(options.split_whitespace()).output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(0), "extract {options}: {said}");
    serde_json::from_slice(&done.stdout).expect("JSON")
}

/// A base, an adapter merged into it, and where they are.
fn merged(dtype: Dtype, size: f32) -> (Bench, PathBuf, PathBuf, PathBuf) {
    let bench = Bench::new();
    let base = base(dtype, size).save(&bench.path("base.safetensors"));
    let modules = [(Q, 128, 96, 4), (K, 96, 160, 7)];
    let adapter = made(5, &modules, How { alpha: 4.0, ..How::default() });
    let adapter = adapter.save(&bench.path("adapter"));
    let out = bench.merge(&base, &[&adapter], "");
    (bench, base, adapter, out)
}

#[test]
fn what_was_merged_comes_back() {
    for (dtype, size, error) in
        [(Dtype::F32, 0.05, 1e-5), (Dtype::BF16, 0.5, 2e-2), (Dtype::F16, 0.5, 3e-3)]
    {
        let (bench, base, adapter, tuned) = merged(dtype, size);
        let output = bench.path("extracted");
        let report = extract(&base, &tuned, &output, "--rank auto");
        let ranks: Vec<_> =
            report["modules"].as_array().expect("modules").iter().map(|m| &m["rank"]).collect();
        assert_eq!(ranks, [4, 7], "{dtype}");
        let off = relative_error(&deltas(&output), &deltas(&adapter));
        assert!(off < error, "{dtype}: {off}");
        assert_eq!(report["equal"], 3);
    }
}

#[test]
fn the_reported_error_is_the_true_one() {
    let bench = Bench::new();
    let first = base(Dtype::F32, 0.5);
    let mut tuned = first.clone();
    let mut random = Random::new(9);
    for (name, dtype, _, bytes) in &mut tuned.entries {
        if name.ends_with("proj.weight") {
            let mut values = vec![0.0; bytes.len() / 4];
            let element = lora_tool::adapter::tensor::element_type(*dtype).expect("a float");
            element.decode(bytes, &mut values);
            for value in &mut values {
                *value += f64::from(random.value(0.1));
            }
            element.encode(&values, bytes);
        }
    }
    let base = first.save(&bench.path("base.safetensors"));
    let tuned = tuned.save(&bench.path("tuned.safetensors"));
    for options in [
        "--rank 6",
        "--rank 6 --exact",
        "--rank energy:0.6",
        "--rank error:0.7",
        "--rank params:6000",
        "--rank size:30KB",
        "--rank 6 --dtype bf16",
        "--rank ratio:2 --max-rank 20",
    ] {
        let output = bench.path("out");
        let report = extract(&base, &tuned, &output, &format!("{options} --force"));
        let found = deltas(&output);
        let (before, after) = (read(&base), read(&tuned));
        let (mut all, mut off) = (0.0, 0.0);
        for module in report["modules"].as_array().expect("modules") {
            let name = module["base_tensor"].as_str().expect("a name");
            let delta = &found[module["name"].as_str().expect("a name")];
            let values = after[name].values();
            let values = values.iter().zip(before[name].values()).map(|(a, b)| a - b).collect();
            let difference = Dense::new(delta.rows, delta.columns, values);
            let norm = difference.norm();
            let error = difference.minus(delta).norm();
            let said = module["relative_error"].as_f64().expect("a number");
            assert!(
                (said - error / norm).abs() < 1e-4,
                "{options}, {name}: {said} {}",
                error / norm
            );
            let rank = module["rank"].as_u64().expect("a rank") as usize;
            let best = difference.singular_values().iter().skip(rank).map(|v| v * v).sum::<f64>();
            assert!(error <= 1.01 * best.sqrt() + 2e-3 * norm, "{options}, {name}");
            all += norm * norm;
            off += error * error;
        }
        let said = report["relative_error"].as_f64().expect("a number");
        assert!((said - (off / all).sqrt()).abs() < 1e-4, "{options}: {said}");
        if options.contains("error:0.7") {
            assert!(said <= 0.7);
        }
        if options.contains("size") {
            let size = output.join("adapter_model.safetensors").metadata().expect("a file").len();
            assert!(size <= 30_000 && size > 25_000, "{size}");
        }
    }
}

#[test]
fn whatever_differs_is_extracted_stored_or_said() {
    let bench = Bench::new();
    let first = base(Dtype::BF16, 0.5).save(&bench.path("base.safetensors"));
    let mut other = base(Dtype::BF16, 0.5);
    for (_, _, _, bytes) in &mut other.entries {
        // One more or less in the last place of every element.
        for byte in bytes.iter_mut().step_by(2) {
            *byte ^= 1;
        }
    }
    let tuned = other.save(&bench.path("tuned.safetensors"));
    let report = extract(&first, &tuned, &bench.path("some"), "--rank 2");
    let left: Vec<_> = report["left_out"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|tensor| tensor["tensor"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        left,
        ["model.embed_tokens.weight", "model.layers.0.q_proj.bias", "model.norm.weight"]
    );
    let report = extract(&first, &tuned, &bench.path("all"), "--rank 96 --embeddings --full-norms");
    assert_eq!(report["left_out"].as_array().map(Vec::len), Some(0));
    assert_eq!(report["whole"].as_array().map(Vec::len), Some(2));
    let again = bench.merge(&first, &[&bench.path("all")], "");
    for (name, tensor) in read(&again) {
        assert_eq!(tensor, read(&tuned)[&name], "{name}");
    }
}

#[test]
fn dtypes_roots_and_shards_may_differ() {
    let (bench, base, adapter, tuned) = merged(Dtype::BF16, 0.5);
    let wide = bench.merge(&base, &[&adapter], "--dtype f32 --max-shard-size 40KB");
    let mut renamed = Tensors::new();
    for (name, tensor) in read(&tuned) {
        let name = name.replacen("model.", "model.language_model.", 1);
        renamed = renamed.raw(&name, tensor.dtype, &tensor.shape, &tensor.bytes);
    }
    let renamed = renamed.save(&bench.path("renamed.safetensors"));
    for (tuned, error) in [(wide, 1e-5), (renamed, 2e-2)] {
        let output = bench.path("out");
        extract(&base, &tuned, &output, "--rank 7 --force");
        let off = relative_error(&deltas(&output), &deltas(&adapter));
        assert!(off < error, "{off}");
    }
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let (bench, base, _, tuned) = merged(Dtype::BF16, 0.5);
    let outputs: Vec<_> = ["1", "2", "5"]
        .iter()
        .map(|threads| {
            let output = bench.path(&format!("threads-{threads}"));
            extract(&base, &tuned, &output, &format!("--rank energy:0.9 --threads {threads}"));
            tree(&output)
        })
        .collect();
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn transposed_and_convolution_weights_keep_their_layout() {
    let bench = Bench::new();
    let mut random = Random::new(1);
    let mut model = |size: f32| {
        Tensors::new()
            .f32("h.0.attn.c_attn.weight", &[24, 72], &random.values(24 * 72, size))
            .f32("h.0.attn.c_proj.weight", &[24, 24], &random.values(24 * 24, size))
            .f32("conv.weight", &[20, 6, 3, 3], &random.values(20 * 54, size))
    };
    let base = model(1.0).save(&bench.path("base.safetensors"));
    let tuned = model(1.0).save(&bench.path("tuned.safetensors"));
    for (output, options) in [("out", ""), ("out.safetensors", "--to kohya")] {
        let output = bench.path(output);
        extract(&base, &tuned, &output, &format!("--rank 24 --conv-rank 20 {options}"));
        let again = bench.merge(&base, &[&output], "");
        for (name, tensor) in read(&again) {
            let expected = read(&tuned)[&name].values();
            let values = tensor.values();
            let off = values.iter().zip(expected).map(|(a, b)| (a - b).abs());
            assert!(off.fold(0.0, f64::max) < 1e-5, "{name}");
        }
    }
}

/// kohya's names have no way to replace a tensor; the difference is stored, beside the factors or alone.
#[test]
fn norms_and_biases_are_stored_as_differences() {
    let bench = Bench::new();
    let mut random = Random::new(9);
    let mut model = || {
        Tensors::new()
            .float("blocks.0.norm.weight", Dtype::BF16, &[8], &random.values(8, 1.0))
            .float("blocks.0.norm.bias", Dtype::BF16, &[8], &random.values(8, 1.0))
            .float("blocks.0.proj.weight", Dtype::BF16, &[8, 6], &random.values(48, 1.0))
            .float("blocks.0.proj.bias", Dtype::BF16, &[8], &random.values(8, 1.0))
            .float("scale_shift_table", Dtype::BF16, &[2, 4], &random.values(8, 1.0))
    };
    let base = model().save(&bench.path("base.safetensors"));
    let tuned = model().save(&bench.path("tuned.safetensors"));
    let output = bench.path("out.safetensors");
    for to in ["kohya", "comfyui"] {
        let report =
            extract(&base, &tuned, &output, &format!("--rank 6 --full-norms --force --to {to}"));
        assert_eq!(report["whole"].as_array().map(Vec::len), Some(3), "{report}");
        assert_eq!(report["left_out"].as_array().map(Vec::len), Some(1), "{report}");
        let merged = read(&bench.merge(&base, &[&output], "--force"));
        for (name, tensor) in read(&tuned) {
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= b.abs() / 128.0;
            let values = (merged[&name].values(), tensor.values());
            let same = values.0.iter().zip(&values.1).all(close);
            assert_eq!(same, name != "scale_shift_table", "{name}");
            if name.contains("norm") || name.ends_with("bias") {
                assert_eq!(values.0, values.1, "{name}");
            }
        }
    }
    let keys: Vec<String> = read(&output).into_keys().collect();
    assert!(keys.contains(&"diffusion_model.blocks.0.proj.diff_b".to_owned()), "{keys:?}");
    assert!(!keys.contains(&"diffusion_model.blocks.0.norm.alpha".to_owned()), "{keys:?}");
}

/// Two checkpoints that fit, of one tensor.
fn scene(tuned: &Tensors) -> Scene {
    let scene = Scene::sound();
    tuned.save(&scene.path("tuned.safetensors"));
    scene
}

const LINE: &str = "extract base.safetensors tuned.safetensors -o out --rank 2";

#[test]
fn what_is_no_pair_is_refused() {
    let other = Tensors::new().f32("decoder.w.weight", &[4, 3], &[1.0; 12]);
    let hint = "is it a fine-tune of this base?";
    scene(&other).refuses(LINE, &["not of one model", "1 of the base's tensors"], hint);
    let both = crate::common::refusal::base().f32("lm_head.weight", &[4, 3], &[1.0; 12]);
    scene(&both).refuses(LINE, &["1 are only in the other", "`lm_head.weight`"], hint);
    let shape = Tensors::new().f32(crate::common::refusal::TARGET, &[3, 4], &[1.0; 12]);
    scene(&shape).refuses(LINE, &["it is [4, 3] in the base and [3, 4]"], hint);
    let grown = Tensors::new().f32(crate::common::refusal::TARGET, &[6, 3], &[1.0; 18]);
    scene(&grown).refuses(LINE, &["grown from 4 rows to 6"], "--full-norms stores it whole");
    let codes = Tensors::new().raw(crate::common::refusal::TARGET, Dtype::I8, &[4, 3], &[1; 12]);
    scene(&codes).refuses(LINE, &["quantised (packed in I8)"], "16-bit or 32-bit original");
}

#[test]
fn grown_vocabularies_are_stored_whole_where_asked_for() {
    let scene = Scene::empty();
    let table = |rows: usize| {
        let values = Random::new(2).values(rows * 3, 1.0);
        crate::common::refusal::base().f32("model.embed_tokens.weight", &[rows, 3], &values)
    };
    table(4).save(&scene.path("base.safetensors"));
    table(6).save(&scene.path("tuned.safetensors"));
    scene.refuses(LINE, &["`model.embed_tokens.weight`", "grown from 4 rows to 6"], "--full-norms");
    scene.runs(&format!("{LINE} --full-norms"));
    scene.runs("merge base.safetensors out -o again.safetensors");
    assert_eq!(read(&scene.path("again.safetensors")), read(&scene.path("tuned.safetensors")));
}

#[test]
fn values_that_say_nothing_are_refused() {
    let same = scene(&crate::common::refusal::base());
    same.refuses_late(LINE, &["nothing to extract", "the only tensor is the same"], "two paths");
    let mut values = [0.5; 12];
    values[7] = f32::NAN;
    let broken = Tensors::new().f32(crate::common::refusal::TARGET, &[4, 3], &values);
    scene(&broken).refuses_late(LINE, &["element 7", "NaN"], "damaged");
    let sound = Tensors::new().f32(crate::common::refusal::TARGET, &[4, 3], &[1.0; 12]);
    let least = "--rank params:6 -o out base.safetensors tuned.safetensors";
    scene(&sound).refuses_late(
        &format!("extract {least}"),
        &["params:6", "rank 1 in every module takes 7 parameters"],
        "the least budget is 7",
    );
    let line = LINE.replace("-o out", "-o out.safetensors --to peft");
    scene(&sound).refuses(&line, &["is a directory"], "");
    scene(&sound).refuses(&format!("{LINE} --max-rank 0"), &["--max-rank 0"], "");
}
