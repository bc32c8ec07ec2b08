//! What is missing, damaged or made to mislead when a merge is undone: named, or refused.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use lora_tool::ops::undo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::refusal::{Scene, tree};
use crate::common::{Random, fixture};

const UNDO: &str = "undo merged --receipt receipt -o out";

/// A merge of two shards to another dtype, so that the receipt keeps the config and the index.
fn scene(options: &str) -> Scene {
    let scene = Scene::empty();
    for (path, bytes) in tree(&fixture("llama")) {
        if !fixture("llama").join(&path).is_dir() {
            scene.write(path.to_str().expect("UTF-8"), bytes);
        }
    }
    scene.runs(format!("merge base style -o merged --receipt receipt {options}").trim());
    scene
}

/// A receipt's contents, where they begin, and where they end.
fn contents(bytes: &[u8]) -> (Value, usize, usize) {
    let end = bytes.len() - 40;
    let length = u64::from_le_bytes(bytes[end..end + 8].try_into().expect("eight bytes"));
    let begin = end - length as usize;
    (serde_json::from_slice(&bytes[begin..end]).expect("JSON"), begin, end)
}

/// The receipt with other contents, and the hash that belongs to them.
fn rewritten(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (mut value, begin, _) = contents(bytes);
    change(&mut value);
    let mut end = serde_json::to_vec(&value).expect("JSON");
    end.extend((end.len() as u64).to_le_bytes());
    let seal = Sha256::digest(&end);
    [&bytes[..begin], &end, &seal].concat()
}

fn undone(scene: &Scene) -> lora_tool::Result<undo::Report> {
    let options = undo::Options {
        merged: scene.path("merged"),
        receipt: scene.path("receipt"),
        output: scene.path("out"),
        threads: 1,
        ..undo::Options::default()
    };
    undo::run(&options, &())
}

#[test]
fn no_flipped_bit_gives_a_wrong_base() {
    let scene = scene("--dtype f16");
    let sound = std::fs::read(scene.path("receipt")).expect("a receipt");
    let base = tree(&scene.path("base"));
    let (mut random, mut restored) = (Random::new(11), 0);
    // Half of the flips in the end, where the names and the hashes stand.
    let end = contents(&sound).1;
    for trial in 0..150 {
        let start = if trial % 2 == 0 { 0 } else { end };
        let at = start + (random.value(1.0).abs() * (sound.len() - start) as f32) as usize;
        let at = at.min(sound.len() - 1);
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (trial / 2 % 8);
        scene.write("receipt", &bytes);
        if undone(&scene).is_ok() {
            restored += 1;
            assert!(tree(&scene.path("out")) == base, "byte {at}");
            std::fs::remove_dir_all(scene.path("out")).expect("removed");
        }
        assert!(!scene.path("out").exists(), "byte {at}");
    }
    assert!(restored < 75, "{restored} flips did nothing");
}

#[test]
fn files_that_are_missing_or_changed_are_named() {
    let scene = scene("");
    scene.remove("merged/generation_config.json");
    scene.write("merged/tokenizer_config.json", "{}");
    let says = [
        "merged: ",
        "2 of the base's other files",
        "generation_config.json: it is missing",
        "tokenizer_config.json: it was changed since the merge",
    ];
    scene.refuses_late(UNDO, &says, "--allow-missing");
    let report = scene.runs(&format!("{UNDO} --allow-missing --json"));
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["side_files"], 2);
    assert_eq!(report["missing"].as_array().map(Vec::len), Some(2));
    assert_eq!(report["warnings"].as_array().map(Vec::len), Some(2));
    let mut expected = tree(&scene.path("base"));
    expected.retain(|path, _| {
        !["generation_config.json", "tokenizer_config.json"].iter().any(|name| path.ends_with(name))
    });
    assert!(tree(&scene.path("out")) == expected);
    std::fs::remove_dir_all(scene.path("out")).expect("removed");
    let said = scene.runs(&format!("{UNDO} --allow-missing"));
    assert!(said.contains("the weights are back") && said.contains("missing"), "{said}");
}

#[test]
fn a_merge_to_one_file_gives_the_whole_directory_back() {
    let scene = scene("");
    scene.runs("merge base style -o one.safetensors --receipt whole");
    scene.runs("undo one.safetensors --receipt whole -o undone");
    assert!(tree(&scene.path("undone")) == tree(&scene.path("base")));
}

#[test]
fn a_receipt_stays_out_of_the_output() {
    let scene = scene("");
    let refused = |line: &str, receipt: &str| {
        let says = format!("{receipt}: the receipt is, contains or lies in the output");
        scene.refuses(line, &[&says], "beside the output");
    };
    refused("merge base style -o o.safetensors --receipt o.safetensors", "o.safetensors");
    refused("merge base style -o merged --receipt merged/r --force", "merged/r");
    refused("merge base style -o new --receipt new/r --resume", "new/r");
    refused("merge base style -o new --receipt .new.resume/r --resume", ".new.resume/r");
}

#[test]
fn a_receipt_cannot_make_more_than_was_merged() {
    let scene = scene("");
    let sound = std::fs::read(scene.path("receipt")).expect("a receipt");
    let many = json!({"copy": {"file": 0, "at": 0, "bytes": 60_000}});
    let bytes = rewritten(&sound, |contents| {
        let file = &mut contents["base"][0];
        file["parts"] = vec![many.clone(); 40_000].into();
    });
    scene.write("receipt", bytes);
    scene.refuses_late(UNDO, &["receipt: ", "do not make up the files"], "merge --receipt FILE");
    // Also where the file is said to be that long.
    let bytes = rewritten(&sound, |contents| {
        let file = &mut contents["base"][0];
        let length = 60_000u64 * 40_000 + file["head"]["bytes"].as_u64().expect("a length");
        file["mark"]["bytes"] = length.into();
        file["parts"] = vec![many; 40_000].into();
    });
    scene.write("receipt", bytes);
    scene.refuses_late(UNDO, &["receipt: ", "do not make up the files"], "merge --receipt FILE");
}

#[test]
fn damage_is_told_from_other_files() {
    let scene = scene("");
    let sound = std::fs::read(scene.path("receipt")).expect("a receipt");
    let (_, begin, end) = contents(&sound);
    for at in [begin, end - 1, end + 3, sound.len() - 1] {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        scene.write("receipt", bytes);
        let hint = if at == end + 3 { "merge --receipt FILE" } else { "nothing was written" };
        scene.refuses_late(UNDO, &["receipt: "], hint);
    }
}

#[test]
fn an_earlier_receipt_is_read_with_a_warning() {
    let scene = scene("--dtype f16");
    earlier(&scene.path("receipt"));
    let report = undone(&scene).expect("it reads");
    assert!(report.warnings.concat().contains("without a hash of its own"), "{report:?}");
    assert!(tree(&scene.path("out")) == tree(&scene.path("base")));
}

/// Turns a receipt into one of the format before: without its hash.
fn earlier(receipt: &Path) {
    let bytes = std::fs::read(receipt).expect("a receipt");
    let mut bytes = bytes[..bytes.len() - 32].to_vec();
    let at = bytes.iter().position(|byte| *byte == b'\n').expect("a first line") - 1;
    assert_eq!(bytes[at], b'2');
    bytes[at] = b'1';
    std::fs::write(receipt, bytes).expect("written");
}
