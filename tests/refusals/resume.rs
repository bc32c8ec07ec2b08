//! `merge --resume`: finished shards of an interrupted run are used again, and only those that are
//! still what they were made to be.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::process::Command;

use crate::common::refusal::{Scene, tree};
use crate::common::{Peft, Random, Tensors};
use lora_tool::format::Dtype;
use serde_json::{Value, json};

const TOOL: &str = env!("CARGO_BIN_EXE_lora-tool");
const KEPT: &str = ".out.resume";
const LINE: &str = "merge base adapter -o out --resume";

/// A base of three shards, the last of which is 512 KiB and the others 32 KiB, and an adapter.
fn scene() -> Scene {
    let scene = Scene::empty();
    let mut random = Random::new(5);
    let mut adapter = Peft::new(4, 4.0);
    let mut weight_map = serde_json::Map::new();
    for (number, size) in [128, 128, 512].into_iter().enumerate() {
        let file = format!("model-{:05}-of-00003.safetensors", number + 1);
        let name = format!("layers.{number}.q_proj");
        let weight = random.values(size * size, 0.02);
        let tensor = format!("{name}.weight");
        let tensors = Tensors::new().float(&tensor, Dtype::BF16, &[size, size], &weight);
        tensors.save(&scene.path("base").join(&file));
        let factors = [random.values(4 * size, 0.1), random.values(4 * size, 0.1)];
        adapter = adapter.linear(&name, 4, &factors[0], &factors[1]);
        weight_map.insert(tensor, json!(file));
    }
    let index = json!({"metadata": {}, "weight_map": weight_map});
    scene.write("base/model.safetensors.index.json", index.to_string());
    adapter.save(&scene.path("adapter"));
    scene
}

/// Fails at the third shard, for it is longer than files may be.
fn interrupt(scene: &Scene) {
    let line = format!("trap '' XFSZ; ulimit -f 200; exec '{TOOL}' -q {LINE}");
    let done = Command::new("sh").current_dir(scene.path("")).args(["-c", &line]).output();
    let done = done.expect("a shell");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("File too large"), "{said}");
    assert!(said.contains(&format!("\nhint: finished files are kept in {KEPT}")), "{said}");
    assert!(!scene.path("out").exists());
    assert!(scene.path(KEPT).join("out/model-00001-of-00003.safetensors").exists());
}

/// Finishes the merge: how many shards were used again. The result must be that of a run in one go.
fn resume(scene: &Scene) -> u64 {
    scene.runs("merge base adapter -o whole");
    let whole: Value = serde_json::from_str(&scene.runs("merge base adapter -o again --json"))
        .expect("a JSON report");
    let mut report: Value =
        serde_json::from_str(&scene.runs(&format!("{LINE} --json"))).expect("a JSON report");
    assert!(!scene.path(KEPT).exists());
    assert!(tree(&scene.path("out")) == tree(&scene.path("whole")), "other bytes");
    let reused = report["shards_reused"].take().as_u64().expect("a count");
    assert_eq!(report["tensors"], whole["tensors"], "statistics of reused shards");
    assert_eq!(report["effective"], whole["effective"]);
    reused
}

#[test]
fn finished_shards_are_used_again() {
    let scene = scene();
    interrupt(&scene);
    interrupt(&scene);
    assert_eq!(resume(&scene), 2);
    scene.refuses_late(LINE, &["out", "it exists already"], "--force");
}

#[test]
fn damaged_shards_are_made_again() {
    let scene = scene();
    interrupt(&scene);
    let path = format!("{KEPT}/out/model-00002-of-00003.safetensors");
    let mut bytes = std::fs::read(scene.path(&path)).expect("kept");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    scene.write(&path, bytes);
    assert_eq!(resume(&scene), 1);
}

#[test]
fn a_note_cut_short_is_no_note() {
    let scene = scene();
    interrupt(&scene);
    scene.write(&format!("{KEPT}/part-00000.json"), "{\"shard\":");
    assert_eq!(resume(&scene), 1);
}

#[test]
fn another_merge_starts_anew() {
    let scene = scene();
    interrupt(&scene);
    // The same bytes, written again: who knows what happened in between.
    let adapter = "adapter/adapter_model.safetensors";
    let bytes = std::fs::read(scene.path(adapter)).expect("readable");
    scene.write(adapter, bytes);
    assert_eq!(resume(&scene), 0);
    std::fs::remove_dir_all(scene.path("out")).expect("removed");
    std::fs::remove_dir_all(scene.path("whole")).expect("removed");
    std::fs::remove_dir_all(scene.path("again")).expect("removed");
    interrupt(&scene);
    let report = scene.runs(&format!("{LINE} --json -w 0.5"));
    let report: Value = serde_json::from_str(&report).expect("a JSON report");
    assert_eq!(report["shards_reused"], 0);
    scene.runs("merge base adapter -o half -w 0.5");
    assert!(tree(&scene.path("out")) == tree(&scene.path("half")));
}

#[test]
fn one_run_at_a_time_and_no_single_file() {
    let scene = scene();
    interrupt(&scene);
    let lock = std::fs::File::open(scene.path(KEPT).join("lock")).expect("a lock");
    lock.lock().expect("locked");
    scene.refuses_late(LINE, &["another run is building"], "wait");
    drop(lock);
    scene.refuses(
        "merge base adapter -o out.safetensors --resume",
        &["out.safetensors: ", "--resume needs an output of several files"],
        "",
    );
}

#[test]
fn a_link_in_its_place_is_not_followed() {
    let scene = scene();
    scene.write("elsewhere/precious.txt", "kept");
    std::os::unix::fs::symlink("elsewhere", scene.path(KEPT)).expect("linked");
    scene.refuses_late(LINE, &[KEPT, "File exists"], "");
}

#[test]
fn strangers_do_not_go_out_with_the_result() {
    let scene = scene();
    interrupt(&scene);
    let out = scene.path(KEPT).join("out");
    scene.write(&format!("{KEPT}/out/config.json"), "{}");
    scene.write(&format!("{KEPT}/out/deep/evil.bin"), "evil");
    let shard = out.join("model-00001-of-00003.safetensors");
    std::fs::rename(&shard, scene.path("elsewhere")).expect("moved");
    std::os::unix::fs::symlink(scene.path("elsewhere"), &shard).expect("linked");
    assert_eq!(resume(&scene), 1, "a link is no finished shard");
    assert!(!scene.path("out/model-00001-of-00003.safetensors").is_symlink());
}

#[test]
fn an_input_changed_behind_its_times_makes_another_merge() {
    let scene = scene();
    interrupt(&scene);
    let path = scene.path("base/model-00001-of-00003.safetensors");
    let mut bytes = std::fs::read(&path).expect("readable");
    let modified = path.metadata().expect("metadata").modified().expect("a time");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let file = std::fs::File::options().write(true).open(&path).expect("opens");
    file.set_modified(modified).expect("set");
    assert_eq!(resume(&scene), 0);
}

#[test]
fn what_would_fail_again_is_not_kept() {
    let scene = scene();
    let path = scene.path("base/model-00003-of-00003.safetensors");
    let mut bytes = std::fs::read(&path).expect("readable");
    let last = bytes.len() - 2;
    bytes[last..].copy_from_slice(&0x7f80_u16.to_le_bytes());
    std::fs::write(&path, bytes).expect("written");
    let said =
        scene.refuses_late(LINE, &["of the base tensor is inf"], "the base itself is damaged");
    assert!(!said.contains("goes on from there"), "{said}");
    assert!(!scene.path(KEPT).exists());
}

#[test]
fn what_a_killed_run_left_is_named() {
    let scene = scene();
    scene.write(".out.partial-abcdef/model.safetensors", "half");
    let report = scene.runs("merge base adapter -o out --json");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains(".out.partial-abcdef is left of a run that was killed"),
        "{warnings}"
    );
}
