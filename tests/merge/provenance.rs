//! What a merge says in its headers of where it comes from, and `verify` by that alone.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::Path;

use lora_tool::format::{Access, Checkpoint, Metadata};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::refusal::{Scene, adapter, tree};

fn header(path: &Path) -> Metadata {
    let file = Checkpoint::open(path, Access::Map).expect("a checkpoint");
    file.shards.first().and_then(|shard| shard.header.metadata.clone()).unwrap_or_default()
}

fn made(path: &Path) -> Value {
    serde_json::from_str(&header(path)["lora_tool"]).expect("JSON")
}

fn sha256(path: &Path) -> String {
    format!("{:x}", Sha256::digest(std::fs::read(path).expect("a file")))
}

#[test]
fn a_header_says_what_was_merged_and_nothing_of_the_place_or_time() {
    let scene = Scene::sound();
    adapter(0.5).save(&scene.path("style"));
    scene.runs("merge base.safetensors adapter style -w 0.7 1 --module-weight q_proj=0.5 -o out.safetensors");
    let out = scene.path("out.safetensors");
    let files = |name: &str| {
        let of = |file: &str| sha256(&scene.path(name).join(file));
        json!({
            "adapter_model.safetensors": of("adapter_model.safetensors"),
            "adapter_config.json": of("adapter_config.json"),
        })
    };
    let base = std::fs::metadata(scene.path("base.safetensors")).expect("a file").len();
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "method": "linear",
        "base_name": "base.safetensors",
        "base_bytes": {"base.safetensors": base},
        "inputs": [
            {"name": "adapter", "weight": 0.7, "files": files("adapter")},
            {"name": "style", "weight": 1.0, "files": files("style")},
        ],
        "options": {"module_weights": [["q_proj", 0.5]], "weights": [0.7, 1.0]},
    });
    assert_eq!(made(&out), expected);
    assert_eq!(header(&out)["format"], "pt");
    // Elsewhere, later, and with another number of threads: the same bytes.
    let other = Scene::sound();
    adapter(0.5).save(&other.path("style"));
    let line =
        "merge ./base.safetensors ./adapter style -w 0.7 1 --module-weight q_proj=0.5 --threads 1";
    other.runs(&format!("{line} -o elsewhere.safetensors"));
    assert_eq!(sha256(&out), sha256(&other.path("elsewhere.safetensors")));
}

#[test]
fn without_it_a_header_is_the_bases() {
    let scene = Scene::sound();
    scene.runs("merge base.safetensors adapter -o out.safetensors --no-provenance");
    assert_eq!(header(&scene.path("out.safetensors")), header(&scene.path("base.safetensors")));
    scene.runs("verify out.safetensors --base base.safetensors --adapter adapter");
    let says = ["out.safetensors", "its header does not say", "--base", "--adapter"];
    scene.refuses_late("verify out.safetensors", &says, "");
}

#[test]
fn a_result_is_verified_by_its_header_alone() {
    let scene = Scene::sound();
    adapter(0.5).save(&scene.path("style"));
    let how = "-w 0.7 -1 --exclude nothing_but_this --dtype bf16 --allow-unmatched";
    let how = how.replace("--exclude nothing_but_this ", "");
    scene.runs(&format!("merge base.safetensors adapter style {how} -o out.safetensors"));
    let said = scene.runs("verify out.safetensors");
    assert!(said.starts_with("verified"), "{said}");
    scene.runs(&format!(
        "verify out.safetensors --base base.safetensors --adapter adapter style {how}"
    ));
    // One of them named; the name may be another.
    std::fs::rename(scene.path("style"), scene.path("renamed")).expect("renamed");
    let says = ["made of the adapter `style`", "neither beside it nor here", "--adapter"];
    scene.refuses_late("verify out.safetensors", &says, "");
    scene.runs("verify out.safetensors --adapter adapter renamed");
    let says = ["go with --base and --adapter"];
    scene.refuses_late("verify out.safetensors --adapter adapter renamed -w 1 2", &says, "");
    // Other factors under the same name.
    adapter(0.75).save(&scene.path("style"));
    let mut command = crate::common::lora_tool();
    let output = command.current_dir(scene.path("")).args(["verify", "out.safetensors"]).output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another `lora_tool`"), "{said}");
}

#[test]
fn a_name_in_a_header_is_no_path() {
    let scene = Scene::sound();
    scene.runs("merge base.safetensors adapter -o out.safetensors");
    let text = header(&scene.path("out.safetensors"))["lora_tool"].clone();
    for name in ["../adapter", "/etc/passwd", ".."] {
        let text = text.replacen("\"name\":\"adapter\"", &format!("\"name\":\"{name}\""), 1);
        scene.runs(&format!(
            "metadata out.safetensors --set lora_tool={text} -o stranger.safetensors"
        ));
        let says = [format!("`{name}`")];
        scene.refuses_late(
            "verify stranger.safetensors",
            &[&says[0], "neither beside it nor here"],
            "",
        );
        scene.remove("stranger.safetensors");
    }
    assert!(tree(&scene.path("")).len() > 3);
}
