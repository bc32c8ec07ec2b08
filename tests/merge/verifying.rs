//! `verify` looks at every byte: of the weights, of their headers, and of all files beside them.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use lora_tool::ops::merge::{self, AdapterInput};
use lora_tool::ops::verify;
use serde_json::Value;

use crate::common::refusal::{Scene, tree};
use crate::common::{Random, fixture};

fn options(merged: &Path) -> verify::Options {
    verify::Options {
        merged: merged.to_path_buf(),
        merge: merge::Options {
            base: fixture("llama/base"),
            adapters: vec![AdapterInput::new(fixture("llama/style"), 1.0)],
            threads: 1,
            ..merge::Options::default()
        },
        sample: None,
    }
}

/// A merge of the fixtures.
fn merged(scene: &Scene, flags: &str) -> PathBuf {
    let [base, style] = ["base", "style"].map(|name| fixture("llama").join(name));
    let line = format!("merge {} {} -o merged {flags}", base.display(), style.display());
    scene.runs(line.trim());
    scene.path("merged")
}

fn said(merged: &Path, sample: Option<usize>) -> Vec<String> {
    let options = verify::Options { sample, ..options(merged) };
    let report = verify::run(&options, &()).expect("it can be judged");
    assert_eq!(report.ok, report.faults.is_empty());
    report.faults.iter().map(|fault| format!("{}: {}", fault.place(), fault.what)).collect()
}

#[test]
fn every_flipped_byte_is_noticed() {
    let scene = Scene::empty();
    let merged = merged(&scene, "");
    assert_eq!(said(&merged, None), [""; 0]);
    let files: Vec<_> = tree(&merged).into_iter().collect();
    let mut random = Random::new(21);
    for trial in 0..120 {
        // Weights are most of the bytes: every other flip is in a file chosen evenly.
        let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut at = (random.value(1.0).abs() * total as f32) as usize % total;
        let mut number = trial / 2 % files.len();
        if trial % 2 == 0 {
            let found = files.iter().position(|(_, bytes)| {
                let here = at < bytes.len();
                at = if here { at } else { at - bytes.len() };
                here
            });
            number = found.expect("a file");
        }
        let (name, sound) = &files[number];
        let at = at % sound.len();
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (trial % 8);
        std::fs::write(merged.join(name), &bytes).expect("written");
        let noticed = verify::run(&options(&merged), &()).map_or(true, |report| !report.ok);
        assert!(noticed, "bit {} of byte {at} of {}", trial % 8, name.display());
        std::fs::write(merged.join(name), sound).expect("written");
    }
    assert_eq!(said(&merged, None), [""; 0]);
}

#[test]
fn files_and_headers_are_compared_too() {
    let scene = Scene::empty();
    let merged = merged(&scene, "");
    let config = std::fs::read(merged.join("config.json")).expect("a config");
    let with = |bytes: &[u8]| {
        std::fs::write(merged.join("config.json"), bytes).expect("written");
        said(&merged, None)
    };
    let longer = [&config[..], b"\n"].concat();
    let at = config.len();
    let fault = format!("config.json: it is not as merge writes it, first at byte {at}");
    assert_eq!(with(&longer), [fault]);
    assert_eq!(with(&config), [""; 0]);
    std::fs::remove_file(merged.join("config.json")).expect("removed");
    assert_eq!(said(&merged, None), ["config.json: it is missing"]);
    std::fs::write(merged.join("config.json"), config).expect("written");
    let shard = "model-00001-of-00002.safetensors";
    scene.runs(&format!("metadata merged/{shard} --set note=mine --in-place"));
    let fault = "its header's metadata has `note`, which merge does not write";
    assert_eq!(said(&merged, None), [format!("{shard}: {fault}")]);
    assert_eq!(said(&merged, Some(2)), [format!("{shard}: {fault}")]);
    scene.runs(&format!("metadata merged/{shard} --remove note --in-place"));
    scene.write("merged/notes.txt", "mine");
    let report = verify::run(&options(&merged), &()).expect("judged");
    assert!(report.ok, "a file more is no fault");
    assert_eq!(report.others, ["notes.txt"]);
}

#[test]
fn other_shards_of_the_same_tensors_are_no_fault() {
    let scene = Scene::empty();
    let merged = merged(&scene, "--max-shard-size 9KB");
    assert!(tree(&merged).len() > tree(&fixture("llama/base")).len());
    assert_eq!(said(&merged, None), [""; 0]);
    let index = merged.join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).expect("an index");
    std::fs::write(&index, text.replacen("total_size", "total_sizes", 1)).expect("written");
    assert_eq!(said(&merged, None).len(), 1);
    let one = scene.path("one.safetensors");
    let [base, style] = ["base", "style"].map(|name| fixture("llama").join(name));
    scene.runs(&format!("merge {} {} -o one.safetensors", base.display(), style.display()));
    assert_eq!(said(&one, None), [""; 0]);
}

#[test]
fn a_report_says_how_much_was_looked_at() {
    let scene = Scene::empty();
    let merged = merged(&scene, "");
    let whole = verify::run(&options(&merged), &()).expect("judged");
    assert_eq!((whole.rows_compared, whole.same_code), (whole.rows, 0));
    assert_eq!(whole.files, 2 + tree(&merged).len() - 2);
    assert!(whole.rows_recomputed > 0 && whole.rows_recomputed < whole.rows);
    assert!(whole.largest_error <= whole.allowed_error && whole.allowed_error < 1.0, "{whole:?}");
    let quick = verify::Options { sample: Some(2), ..options(&merged) };
    let quick = verify::run(&quick, &()).expect("judged");
    assert!(quick.ok && quick.rows == whole.rows);
    assert_eq!(quick.rows_recomputed, 2 * quick.recomputed as u64);
    assert_eq!(quick.rows_compared, 2 * quick.copied as u64 - norms(&merged));
    let refused = verify::Options { sample: Some(0), ..options(&merged) };
    assert!(verify::run(&refused, &()).is_err());
}

/// Tensors of one row.
fn norms(merged: &Path) -> u64 {
    let index = std::fs::read(merged.join("model.safetensors.index.json")).expect("an index");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    let names = index["weight_map"].as_object().expect("a map");
    names.keys().filter(|name| name.contains("norm")).count() as u64
}

#[test]
fn what_has_no_second_formula_is_said() {
    let scene = Scene::empty();
    let flags = "--method ties --density 0.5";
    let merged = merged(&scene, flags);
    let [base, style] = ["base", "style"].map(|name| fixture("llama").join(name));
    let line =
        format!("verify merged --base {} --adapter {} {flags}", base.display(), style.display());
    let said = scene.runs(&line);
    assert!(said.contains("tensors by the method's own code"), "{said}");
    let report: Value = serde_json::from_str(&scene.runs(&format!("{line} --json"))).expect("JSON");
    assert_eq!(report["same_code"], report["recomputed"]);
    let shard = merged.join("model-00001-of-00002.safetensors");
    let mut bytes = std::fs::read(&shard).expect("a shard");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&shard, bytes).expect("written");
    let mut command = crate::common::lora_tool();
    command.current_dir(scene.path("")).args(line.split(' ')).assert().code(1);
}
