//! Undoing merges: the base comes back bit for bit, whatever was merged, or nothing does.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use crate::common::made::{How, made};
use crate::common::refusal::{Scene, tree};
use crate::common::{Bench, Peft, Random, Tensors, fixture, lora_tool};
use lora_tool::format::Dtype;
use serde_json::json;

const Q: &str = "model.layers.0.q_proj";

fn undo(merged: &Path, receipt: &Path, output: &Path) {
    let mut command = lora_tool();
    command.arg("undo").arg(merged).arg("--receipt").arg(receipt).arg("-o").arg(output);
    let done = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(0), "undo {}: {said}", merged.display());
}

/// Merges with a receipt, undoes it, and compares all files with the base's; the receipt's size.
fn round_trip(bench: &Bench, base: &Path, adapters: &[&Path], options: &str) -> u64 {
    let receipt = bench.path("receipt");
    let options = format!("{options} --receipt {}", receipt.display());
    let merged = bench.merge(base, adapters, &options);
    let output = bench.path("undone");
    undo(&merged, &receipt, &output);
    let expected = if base.is_dir() { tree(base) } else { one(base) };
    assert!(tree(&output) == expected, "{options}");
    std::fs::remove_dir_all(&output).expect("removed");
    let size = receipt.metadata().expect("a receipt").len();
    std::fs::remove_file(&receipt).expect("removed");
    size
}

fn one(file: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let name = PathBuf::from(file.file_name().expect("a name"));
    [(name, std::fs::read(file).expect("readable"))].into()
}

/// A base of two weights and a norm.
fn base(dtype: Dtype, rows: usize) -> Tensors {
    let mut random = Random::new(3);
    Tensors::new()
        .float("model.embed_tokens.weight", dtype, &[24, 96], &random.values(24 * 96, 1.0))
        .float(&format!("{Q}.weight"), dtype, &[rows, 96], &random.values(rows * 96, 1.0))
        .float("model.norm.weight", dtype, &[96], &random.values(96, 1.0))
}

#[test]
fn every_dtype_comes_back() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64] {
        let bench = Bench::new();
        let base = base(dtype, 128).save(&bench.path("base.safetensors"));
        let adapter = made(5, &[(Q, 128, 96, 4)], How { alpha: 0.4, ..How::default() });
        let adapter = adapter.save(&bench.path("adapter"));
        for options in
            ["", "-w 30", "--dtype f32", "--dtype bf16", "--dtype f16 --max-shard-size 9KB"]
        {
            round_trip(&bench, &base, &[&adapter], options);
        }
    }
}

#[test]
fn the_receipt_of_a_low_rank_merge_is_small() {
    let bench = Bench::new();
    let base = base(Dtype::BF16, 768).save(&bench.path("base.safetensors"));
    let adapter = made(5, &[(Q, 768, 96, 4)], How { alpha: 0.04, ..How::default() });
    let adapter = adapter.save(&bench.path("adapter"));
    let size = round_trip(&bench, &base, &[&adapter], "");
    let merged = 768 * 96 * 2;
    // Factors of rank 4 alone are 4.7 % of so small a tensor.
    assert!(size < merged / 5, "{size} of {merged}");
}

#[test]
fn shards_indexes_and_side_files_come_back() {
    let bench = Bench::new();
    let base = fixture("llama/base-sharded");
    let base = if base.is_dir() { base } else { sharded(&bench) };
    let adapter = made(5, &[(Q, 128, 96, 4)], How::default()).save(&bench.path("adapter"));
    let adapters = [adapter.as_path()];
    round_trip(&bench, &base, &adapters, "");
    round_trip(&bench, &base, &adapters, "--max-shard-size 9KB");
    round_trip(&bench, &base, &adapters, "--dtype f32");
}

/// A directory of two shards, an index, a config and a tokenizer.
fn sharded(bench: &Bench) -> PathBuf {
    let directory = bench.path("sharded");
    let (mut first, mut second) = (base(Dtype::BF16, 128), Tensors::new());
    second.entries = first.entries.split_off(1);
    let name = |at| format!("model-0000{at}-of-00002.safetensors");
    first.save(&directory.join(name(1)));
    second.save(&directory.join(name(2)));
    let mut map = serde_json::Map::new();
    for (at, tensors) in [(1, &first), (2, &second)] {
        for (tensor, ..) in &tensors.entries {
            map.insert(tensor.clone(), json!(name(at)));
        }
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    std::fs::write(directory.join("model.safetensors.index.json"), index).expect("written");
    let config = r#"{"torch_dtype":"bfloat16",  "tie_word_embeddings": true, "vocab_size": 24}"#;
    std::fs::write(directory.join("config.json"), config).expect("written");
    std::fs::write(directory.join("tokenizer.json"), "{}").expect("written");
    directory
}

#[test]
fn dora_replaced_grown_and_untied_tensors_come_back() {
    let bench = Bench::new();
    let base = sharded(&bench);
    let mut random = Random::new(8);
    let mut values = |count: usize| random.values(count, 0.7);
    let lora = |values: &mut dyn FnMut(usize) -> Vec<f32>| {
        Peft::new(2, 2.0).linear(Q, 2, &values(2 * 96), &values(2 * 128))
    };
    let adapters = [
        lora(&mut values).field("use_dora", true).tensor(
            &format!("{Q}.lora_magnitude_vector"),
            &[128],
            &values(128).iter().map(|value| value.abs() + 3.0).collect::<Vec<_>>(),
        ),
        lora(&mut values).field("modules_to_save", json!(["norm"])).tensor(
            "model.norm.weight",
            &[96],
            &values(96),
        ),
        lora(&mut values).field("modules_to_save", json!(["embed_tokens"])).tensor(
            "model.embed_tokens.weight",
            &[30, 96],
            &values(30 * 96),
        ),
        lora(&mut values).field("modules_to_save", json!(["lm_head"])).tensor(
            "lm_head.weight",
            &[24, 96],
            &values(24 * 96),
        ),
    ];
    for (at, adapter) in adapters.iter().enumerate() {
        let adapter = adapter.save(&bench.path(&format!("adapter-{at}")));
        round_trip(&bench, &base, &[&adapter], "");
        round_trip(&bench, &base, &[&adapter], "--dtype f16");
    }
}

#[test]
fn one_file_in_one_file_out() {
    let scene = Scene::sound();
    scene.runs("merge base.safetensors adapter -o merged.safetensors --receipt receipt");
    scene.runs("undo merged.safetensors --receipt receipt -o undone.safetensors");
    let bytes = |name: &str| std::fs::read(scene.path(name)).expect("readable");
    assert_eq!(bytes("undone.safetensors"), bytes("base.safetensors"));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let scene = Scene::sound();
    scene.runs("merge base.safetensors adapter -o merged.safetensors --receipt receipt");
    scene.runs("merge base.safetensors adapter -w 2 -o other.safetensors --receipt second");
    let line = "undo merged.safetensors --receipt receipt -o out.safetensors";
    let other = line.replace("merged", "other");
    scene.refuses_late(
        &other,
        &["other.safetensors", "not the file that the receipt"],
        "own merge",
    );
    let base = line.replace("merged", "base");
    scene.refuses_late(&base, &["not the file that the receipt"], "own merge");
    let none = line.replace("--receipt receipt", "--receipt merged.safetensors");
    scene.refuses_late(&none, &["no receipt of a merge"], "merge --receipt FILE");
    scene.refuses_late(&line.replace("out", "merged"), &["contains or lies inside"], "elsewhere");
    scene.refuses(
        "merge base.safetensors adapter -o out --receipt receipt",
        &["receipt", "exists already"],
        "--force",
    );
    let sound = std::fs::read(scene.path("receipt")).expect("readable");
    for at in (0..sound.len()).step_by(7) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x15;
        scene.write("receipt", &bytes);
        let done = lora_tool().current_dir(scene.path("")).args(line.split(' ')).output();
        let done = done.expect("it runs");
        // A flip in the base's path or version harms nothing; all else must be noticed.
        if done.status.code() == Some(0) {
            let made = std::fs::read(scene.path("out.safetensors")).expect("readable");
            assert_eq!(made, std::fs::read(scene.path("base.safetensors")).expect("readable"));
            std::fs::remove_file(scene.path("out.safetensors")).expect("removed");
        } else {
            assert_eq!(done.status.code(), Some(2), "byte {at}");
            assert!(!scene.path("out.safetensors").exists(), "byte {at}");
        }
    }
}
