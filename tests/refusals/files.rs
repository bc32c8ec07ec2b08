//! Files that merge must refuse: cut short, misleading, contradictory, pickled.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use crate::common::refusal::{MERGE, Scene, TARGET, base};
use serde_json::json;

const DAMAGED: &str = "the file is damaged";
const CUT_SHORT: &str = "cut short";
const NOT_WHOLE: &str = "did it arrive whole";

/// A safetensors file with this header, followed by so many bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn files_cut_short_or_padded() {
    let whole = base().bytes();
    let header = whole.len() - 48;
    let cases = [
        (0, "needs 8 bytes, the file has 0", CUT_SHORT),
        (7, "needs 8 bytes, the file has 7", CUT_SHORT),
        (20, "the file has 20", CUT_SHORT),
        (header - 1, "the file is truncated: its header needs", CUT_SHORT),
        (header, "the file is truncated or padded", CUT_SHORT),
        (whole.len() - 1, "the file is truncated or padded", CUT_SHORT),
        (whole.len() + 1, "the file is truncated or padded", CUT_SHORT),
    ];
    for (length, says, hint) in cases {
        let scene = Scene::sound();
        let mut bytes = whole.clone();
        bytes.resize(length, 0);
        scene.write("base.safetensors", &bytes);
        scene.refuses(MERGE, &["error: base.safetensors: ", says], hint);
        let scene = Scene::sound();
        scene.write("adapter/adapter_model.safetensors", &bytes);
        scene.refuses(MERGE, &["error: adapter/adapter_model.safetensors: ", says], hint);
    }
}

#[test]
fn headers_that_lie() {
    let tensor =
        |offsets: &str| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}"#);
    let two =
        |first: &str, second: &str| format!(r#"{{"a":{},"b":{}}}"#, tensor(first), tensor(second));
    let shape =
        |shape: &str| format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,8]}}}}"#);
    let same = tensor("[0,8]");
    let cases: [(Vec<u8>, &[&str], &str); 15] = [
        (
            file(&two("[0,8]", "[4,12]"), 12),
            &["`b`: ", "start at 4, expected 8", "overlap"],
            DAMAGED,
        ),
        (file(&two("[0,8]", "[0,8]"), 8), &["`b`: ", "overlap"], DAMAGED),
        (
            file(&two("[0,8]", "[12,20]"), 20),
            &["`b`: ", "start at 12, expected 8", "hole"],
            DAMAGED,
        ),
        (file(&two("[4,12]", "[12,20]"), 20), &["`a`: ", "start at 4, expected 0"], DAMAGED),
        (file(&two("[0,8]", "[8,16]"), 8), &["its tensors end at byte", "the file at"], CUT_SHORT),
        (file(&two("[0,8]", "[800000,800008]"), 16), &["`b`: ", "hole"], DAMAGED),
        (file(&two("[0,8]", "[8,4]"), 16), &["`b`: ", "needs 8 bytes"], DAMAGED),
        (file(&two("[0,8]", "[8,12]"), 12), &["`b`: ", "F32 [2] needs 8 bytes", "span 4"], DAMAGED),
        (file(&format!(r#"{{"a":{same},"a":{same}}}"#), 8), &["`a`: ", "twice"], DAMAGED),
        (file(&shape("[NaN]"), 8), &["not a safetensors file", "`a`"], NOT_WHOLE),
        (file(&shape("[-2]"), 8), &["not a safetensors file", "`a`", "-2"], NOT_WHOLE),
        (file(&shape("[1.5]"), 8), &["not a safetensors file", "`a`"], NOT_WHOLE),
        (file(&shape("[4294967296,4294967296]"), 8), &["`a`: ", "address space"], DAMAGED),
        (file("\"text\"", 0), &["not a safetensors file", "object"], NOT_WHOLE),
        (vec![0xff; 64], &["claims 18446744073709551615 bytes", "100000000"], NOT_WHOLE),
    ];
    for (bytes, says, hint) in cases {
        let scene = Scene::sound();
        scene.write("base.safetensors", bytes);
        scene.refuses(MERGE, &[&["error: base.safetensors: "], says].concat(), hint);
    }
}

#[test]
fn indexes_that_lie() {
    let shard = "model-00001-of-00001.safetensors";
    let cases: [(serde_json::Value, &[&str], &str); 7] = [
        (
            json!({TARGET: shard, "a": "gone.safetensors"}),
            &["`gone.safetensors`", "missing"],
            "fetch",
        ),
        (json!({TARGET: shard, "a": shard}), &["`a`: ", shard, "does not hold it"], "fetch"),
        (
            json!({TARGET: "../base.safetensors"}),
            &["../base.safetensors", "outside"],
            "index's own",
        ),
        (json!({TARGET: "/etc/hostname"}), &["/etc/hostname", "outside"], "index's own"),
        (json!({TARGET: ""}), &["outside the directory"], "index's own"),
        (json!({TARGET: 1}), &["not a checkpoint index", TARGET], "again"),
        (json!({}), &["not a checkpoint index", "empty"], "again"),
    ];
    for (weight_map, says, hint) in cases {
        let scene = Scene::sound();
        base().save(&scene.path(&format!("base/{shard}")));
        let index = json!({"metadata": {}, "weight_map": weight_map});
        scene.write("base/model.safetensors.index.json", index.to_string());
        let named = [&["error: base/model.safetensors.index.json: "], says].concat();
        scene.refuses("merge base adapter -o out", &named, hint);
        scene.refuses("merge base/model.safetensors.index.json adapter -o out", &named, hint);
    }
    let scene = Scene::sound();
    scene.write("base/model.safetensors.index.json", "{");
    let says = ["error: base/model.safetensors.index.json: ", "not a checkpoint index", "EOF"];
    scene.refuses("merge base adapter -o out", &says, "again");
}

#[test]
fn directories_that_are_not_one_checkpoint() {
    let scene = Scene::sound();
    base().save(&scene.path("two/a.safetensors"));
    base().save(&scene.path("two/b.safetensors"));
    let says =
        ["error: two: ", "several unrelated files", "a.safetensors, b.safetensors", "name the one"];
    scene.refuses("merge two adapter -o out", &says, "a checkpoint is");
    let says = ["error: two: ", "several .safetensors files", "name the one"];
    scene.refuses("merge base.safetensors two -o out", &says, "an adapter is");
    base().save(&scene.path("lacking/model-00001-of-00003.safetensors"));
    base().save(&scene.path("lacking/model-00003-of-00003.safetensors"));
    let says = ["error: lacking: ", "`model-00002-of-00003.safetensors` is missing"];
    scene.refuses("merge lacking adapter -o out", &says, "a checkpoint is");
    base().save(&scene.path("twice/model-00001-of-00002.safetensors"));
    base().save(&scene.path("twice/model-00002-of-00002.safetensors"));
    let says =
        ["error: twice: ", TARGET, "both `model-00001-of-00002", "and `model-00002-of-00002"];
    scene.refuses("merge twice adapter -o out", &says, "stale");
}

#[test]
fn pickles_are_never_opened() {
    let scene = Scene::sound();
    let files = ["model.bin", "base/pytorch_model.bin", "old/model.CKPT", "lora.pt", "lora.pth"];
    for file in files {
        scene.write(file, "not even a pickle");
    }
    scene.write("shards/pytorch_model-00001-of-00002.bin", "");
    scene.write("shards/pytorch_model.bin.index.json", "{}");
    scene.write("peft/adapter_config.json", r#"{"peft_type":"LORA"}"#);
    scene.write("peft/adapter_model.bin", "");
    let cases = [
        ("model.bin adapter", "model.bin"),
        ("base adapter", "base/pytorch_model.bin"),
        ("old adapter", "old/model.CKPT"),
        ("shards adapter", "shards/pytorch_model-00001-of-00002.bin"),
        ("base.safetensors lora.pt", "lora.pt"),
        ("base.safetensors lora.pth", "lora.pth"),
        ("base.safetensors peft", "peft/adapter_model.bin"),
    ];
    for (inputs, named) in cases {
        let says = [&format!("error: {named}: "), "pickle", "can run code"];
        scene.refuses(&format!("merge {inputs} -o out"), &says, "weights_only=True");
    }
}
