//! Headers read and edited, and the hashes that kohya's scripts give a file.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use crate::common::{Tensors, fixture, lora_tool};
use lora_tool::format::{Access, Dtype, Metadata, checkpoint::Shard};
use serde_json::Value;

fn metadata_of(path: &Path) -> Metadata {
    let shard = Shard::open(path, String::new(), Access::Read).expect("opens");
    shard.header.metadata.unwrap_or_default()
}

fn data_of(path: &Path) -> Vec<u8> {
    let shard = Shard::open(path, String::new(), Access::Read).expect("opens");
    std::fs::read(path).expect("read")[shard.header.data_start as usize..].to_vec()
}

/// Over 1 MiB, so that both hashes are of its tensors. `scripts/interop/kohya_hash.py --made` builds
/// the same file and prints what kohya's algorithm says of it.
fn large() -> Tensors {
    let counted = |count: usize, modulus: usize| -> Vec<f32> {
        (0..count).map(|at| (at % modulus) as f32).collect()
    };
    let mut tensors = Tensors::new();
    for name in ["lora_unet_b", "lora_unet_a"] {
        let key = |part: &str| format!("{name}.{part}");
        tensors = tensors
            .float(&key("lora_down.weight"), Dtype::F16, &[64, 4200], &counted(64 * 4200, 1021))
            .float(&key("lora_up.weight"), Dtype::F16, &[64, 64], &counted(64 * 64, 7))
            .f32(&key("alpha"), &[], &[64.0]);
    }
    let entries =
        [("ss_network_dim", "64"), ("ss_note", "Umlaut ä, \"quoted\"\n"), ("modelspec.title", "x")];
    let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
    tensors.metadata = Some(Metadata::from_iter(entries));
    tensors
}

const LARGE_HASHES: (&str, &str) =
    ("0e4d8bb5a5cf8317ab529fa053b6cec620eaa46fe6e7273517bdc66fc43f6349", "7dac6cb8");

#[test]
fn hashes_are_kohyas() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut tensors = large();
    let metadata = tensors.metadata.as_mut().expect("metadata");
    metadata.insert("sshs_model_hash".to_owned(), "of another file".to_owned());
    let file = tensors.save(&scratch.path().join("in.safetensors"));
    let out = scratch.path().join("out.safetensors");
    let mut command = lora_tool();
    command.arg("metadata").arg(&file).args(["--remove", "modelspec.title", "-o"]).arg(&out);
    let done = command.assert().success();
    let said = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
    assert!(said.contains("was not that of these tensors"), "{said}");
    let metadata = metadata_of(&out);
    assert_eq!(metadata["sshs_model_hash"], LARGE_HASHES.0);
    assert_eq!(metadata["sshs_legacy_hash"], LARGE_HASHES.1);
}

#[test]
fn hashes_of_results_are_kohyas() {
    let golden = fixture("golden/resize_kohya_fixed/expected/lora.safetensors");
    let expected = metadata_of(&golden);
    let scratch = tempfile::tempdir().expect("a directory");
    let out = scratch.path().join("out.safetensors");
    // An edit of the training metadata moves neither hash of a file this small.
    let mut command = lora_tool();
    command.arg("metadata").arg(&golden).args(["--set", "ss_note=x", "-o"]).arg(&out);
    command.assert().success();
    for key in ["sshs_model_hash", "sshs_legacy_hash"] {
        assert_eq!(metadata_of(&out)[key], expected[key], "{key}");
    }
    // What is computed anew is hashed anew, as the edit of it confirms.
    let resized = scratch.path().join("resized.safetensors");
    let mut command = lora_tool();
    command.arg("resize").arg(&golden).args(["--rank", "2", "-o"]).arg(&resized);
    command.assert().success();
    let written = metadata_of(&resized);
    assert_ne!(written["sshs_model_hash"], expected["sshs_model_hash"]);
    let again = scratch.path().join("again.safetensors");
    let mut command = lora_tool();
    command.arg("metadata").arg(&resized).args(["--set", "a=b", "-o"]).arg(&again);
    command.assert().success().stderr("");
    assert_eq!(metadata_of(&again)["sshs_model_hash"], written["sshs_model_hash"]);
    assert_eq!(written["sshs_legacy_hash"], "e3b0c442");
}

#[test]
fn an_edit_leaves_every_tensor_byte() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = large().save(&scratch.path().join("in.safetensors"));
    let before = std::fs::read(&file).expect("read");
    let out = scratch.path().join("out.safetensors");
    let mut command = lora_tool();
    command.arg("metadata").arg(&file).args(["--strip-training", "--set", "k=a=b", "--json", "-o"]);
    let done = command.arg(&out).assert().success();
    let report: Value = serde_json::from_slice(&done.get_output().stdout).expect("JSON");
    assert_eq!(report["command"], "metadata");
    assert_eq!(report["changes"].as_array().expect("changes").len(), 2);
    assert_eq!(report["metadata"]["k"], "a=b");
    assert_eq!(data_of(&out), data_of(&file));
    assert_eq!(std::fs::read(&file).expect("read"), before);
    let keys: Vec<_> = metadata_of(&out).keys().cloned().collect();
    assert_eq!(keys, ["ss_network_dim", "modelspec.title", "k"]);
    // In place, only when asked, and in one step.
    let data = data_of(&file);
    let mut command = lora_tool();
    command.arg("metadata").arg(&file).args(["--remove", "ss_note", "--in-place"]);
    command.assert().success();
    assert_eq!(data_of(&file), data);
    assert!(!metadata_of(&file).contains_key("ss_note"));
}

#[test]
fn edits_that_are_refused() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = large().save(&scratch.path().join("in.safetensors"));
    let before = std::fs::read(&file).expect("read");
    let name = file.to_string_lossy().into_owned();
    let cases: [(&[&str], &str); 5] = [
        (&["--set", "a=b"], "--in-place"),
        (&["--remove", "nothing", "--in-place"], "`nothing`"),
        (&["--set", "a=b", "-o", &name], "inside the input"),
        (&["--set", "=b", "--in-place"], "KEY=VALUE"),
        (&["--set", "a=b", "-o", "/nowhere/at/all.safetensors"], "does not exist"),
    ];
    for (flags, says) in cases {
        let done = lora_tool().arg("metadata").arg(&file).args(flags).assert().code(2);
        let said = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        assert!(said.contains(says), "{flags:?}: {said}");
    }
    assert_eq!(std::fs::read(&file).expect("read"), before);
}

#[test]
fn reading_prints_and_writes_nothing() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = large().save(&scratch.path().join("in.safetensors"));
    let done = lora_tool().arg("metadata").arg(&file).assert().success();
    let said = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    assert!(said.contains("ss_network_dim: 64") && said.contains("modelspec.title: x"), "{said}");
    let brief = lora_tool().arg("inspect").arg(&file).assert().success();
    let brief = String::from_utf8_lossy(&brief.get_output().stdout).into_owned();
    assert!(brief.contains("1 entries of the training") && !brief.contains("ss_note"), "{brief}");
    let whole = lora_tool().arg("inspect").arg(&file).arg("--metadata").assert().success();
    assert!(String::from_utf8_lossy(&whole.get_output().stdout).contains("ss_note"));
    assert_eq!(std::fs::read_dir(scratch.path()).expect("listed").count(), 1);
}
