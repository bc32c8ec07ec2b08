//! Every verb that reads adapters, on a few modules of each model's first block in all the spellings that they have:
//! what goes together is one model's, whoever wrote it.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::bench::Bench;
use crate::common::keys::{Line, real};
use crate::common::{Random, Tensors, lora_tool, read};
use serde_json::Value;

/// Lists of `fixtures/layouts`, one of each way that two layouts differ: cuts, swaps, flattened names of either. Of those
/// whose attention alone tells nothing (Qwen-Image has the names and widths of FLUX.1) no name is guessed.
const LISTS: [&str; 19] = [
    "flux1",
    "flux2_klein_4b",
    "ltx2",
    "krea2",
    "ideogram4",
    "cosmos_predict2_2b",
    "cosmos_predict1_7b",
    "auraflow",
    "mochi",
    "hunyuan_video_official",
    "hunyuan_video_1_5",
    "minimax_h3",
    "stable_audio_open",
    "wan2_t2v_14b",
    "z_image",
    "hidream_i1",
    "sana_1600m",
    "cogvideox_5b",
    "omnigen2",
];

/// The attention of the first block that has any: up to eight modules.
fn attention(list: &str) -> Vec<Line> {
    let all = real(list);
    let is_own = |line: &&Line| {
        let module = &line.module;
        module.contains(".0.") && (module.contains("attn") || module.contains("attention"))
    };
    let found: Vec<Line> = all.iter().filter(is_own).take(8).cloned().collect();
    assert!(!found.is_empty(), "{list}");
    found
}

fn diffusers(path: &Path, lines: &[Line]) -> PathBuf {
    split(path, lines, ["lora_A", "lora_B"], |module| format!("transformer.{module}"))
}

/// kohya's file with diffusers' names, as several trainers write it.
fn flat_split(path: &Path, lines: &[Line]) -> PathBuf {
    let name = |module: &str| format!("lora_unet_{}", module.replace('.', "_"));
    split(path, lines, ["lora_down", "lora_up"], name)
}

fn split(
    path: &Path,
    lines: &[Line],
    [down, up]: [&str; 2],
    name: impl Fn(&str) -> String,
) -> PathBuf {
    let mut random = Random::new(31);
    let mut file = Tensors::new();
    for line in lines {
        let (outputs, inputs) = line.shape();
        let stem = name(&line.module);
        let (a, b) = (random.values(inputs, 1.0), random.values(outputs, 1.0));
        file = file.f32(&format!("{stem}.{down}.weight"), &[1, inputs], &a);
        file = file.f32(&format!("{stem}.{up}.weight"), &[outputs, 1], &b);
        if down == "lora_down" {
            file = file.f32(&format!("{stem}.alpha"), &[], &[1.0]);
        }
    }
    file.save(path)
}

/// What a command says with `--json`; it has to succeed.
fn said(command: &str, paths: &[&Path]) -> Value {
    let done = lora_tool().arg(command).args(paths).arg("--json").output().expect("it runs");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{command} {paths:?}: {errors}");
    serde_json::from_slice(&done.stdout).expect("JSON")
}

/// Asserts that an adapter is `times` the first one, all modules of the smaller found in the larger: rows of a joined
/// tensor that only one of them has are zeros in the other.
fn is_multiple(first: &Path, second: &Path, times: f64, what: &str) {
    let report = said("compare", &[first, second]);
    let adapters = report["adapters"].as_array().expect("two");
    let counts = adapters.iter().map(|own| own["modules"].as_u64().expect("a number"));
    let pair = &report["pairs"][0];
    assert_eq!(pair["shared_modules"].as_u64(), counts.min(), "{what}");
    let number = |field: &str| pair[field].as_f64().expect("a number");
    assert!((number("cosine") - 1.0).abs() < 1e-6, "{what}: cosine {}", number("cosine"));
    let ratio = number("norm_ratio");
    assert!((ratio * times - 1.0).abs() < 1e-5 || (ratio / times - 1.0).abs() < 1e-5, "{what}");
}

#[test]
fn spellings_of_one_model_go_together_in_every_verb() {
    let bench = Bench::new();
    for list in LISTS {
        let lines = attention(list);
        let own = diffusers(&bench.path("d.safetensors"), &lines);
        let flat = bench.convert(&own, "--to kohya", "k.safetensors");
        let rooted = bench.convert(&own, "--to comfyui", "c.safetensors");
        for (other, names) in [(&flat, "kohya"), (&rooted, "comfyui")] {
            is_multiple(&own, other, 1.0, &format!("{list}: diffusers and {names}"));
            is_multiple(other, &own, 1.0, &format!("{list}: {names} and diffusers"));
        }
        is_multiple(&flat, &rooted, 1.0, &format!("{list}: kohya and comfyui"));
        for inputs in [[&own, &flat], [&flat, &rooted], [&rooted, &own]] {
            let inputs = inputs.map(PathBuf::as_path);
            let (code, errors) = bench.run("combine", &inputs, "--weights 1 1", "sum.safetensors");
            assert_eq!(code, Some(0), "{list}: {errors}");
            is_multiple(&own, &bench.path("sum.safetensors"), 2.0, &format!("{list}: the sum"));
        }
        for adapter in [&own, &flat, &rooted] {
            let (code, errors) =
                bench.run("resize", &[adapter], "--rank lossless", "r.safetensors");
            assert_eq!(code, Some(0), "{list}: {errors}");
            is_multiple(adapter, &bench.path("r.safetensors"), 1.0, &format!("{list}: resized"));
            assert!(said("inspect", &[adapter]).is_object(), "{list}");
        }
    }
}

/// Names of all modules of a file.
fn modules(path: &Path) -> BTreeSet<String> {
    let file = read(path);
    let module = |name: &String| {
        let up = [".lora_up.weight", ".lora_B.weight"];
        up.iter().find_map(|ending| name.strip_suffix(ending)).map(str::to_owned)
    };
    let all: BTreeSet<String> = file.keys().filter_map(module).collect();
    for (name, tensor) in &file {
        assert!(tensor.values().iter().any(|value| *value != 0.0), "{name} is zero");
    }
    all
}

/// A module that two adapters have under two names is one in what is made of both: names are brought together before
/// modules are paired, also where some modules have one name in both layouts, and where an adapter has some rows of
/// a joined tensor only.
#[test]
fn names_are_brought_together_before_modules_are_paired() {
    let bench = Bench::new();
    for list in ["flux1", "ltx2", "z_image", "hunyuan_video_official", "hunyuan_video_1_5", "mochi"]
    {
        let attention = attention(list);
        // A module of the blocks that both layouts call the same, where there is one.
        let same = real(list).into_iter().find(|line| {
            line.tensor.strip_suffix(".weight") == Some(&line.module)
                && line.module.contains(".0.")
                && !attention.contains(line)
        });
        let lines: Vec<Line> = attention.iter().cloned().chain(same).collect();
        let dotted = diffusers(&bench.path("d.safetensors"), &lines);
        let flat = flat_split(&bench.path("fd.safetensors"), &lines);
        let published = bench.convert(&dotted, "--to kohya", "k.safetensors");
        let rooted = bench.convert(&dotted, "--to comfyui", "c.safetensors");
        for (first, second) in [
            (&flat, &dotted),
            (&flat, &published),
            (&published, &flat),
            (&flat, &rooted),
            (&rooted, &flat),
            (&dotted, &flat),
        ] {
            let what = format!("{list}: {} and {}", first.display(), second.display());
            let inputs = [first.as_path(), second.as_path()];
            let (code, errors) = bench.run("combine", &inputs, "--weights 1 1", "sum.safetensors");
            assert_eq!(code, Some(0), "{what}: {errors}");
            let sum = bench.path("sum.safetensors");
            is_multiple(&dotted, &sum, 2.0, &what);
            let counts = [&published, &dotted, &rooted].map(|path| modules(path).len());
            assert!(counts.contains(&modules(&sum).len()), "{what}: {:?}", modules(&sum));
        }
    }
}
