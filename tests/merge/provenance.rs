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
    // A large file is known by its size and the 64 KiB in its middle; this one is less than that.
    let base = std::fs::metadata(scene.path("base.safetensors")).expect("a file").len();
    let base = json!({"bytes": base, "middle": sha256(&scene.path("base.safetensors"))});
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "method": "linear",
        "base": {"base.safetensors": base},
        "inputs": [
            {"weight": 0.7, "files": files("adapter")},
            {"weight": 1.0, "files": files("style")},
        ],
        "options": {"module_weights": [["q_proj", 0.5]], "weights": [0.7, 1.0]},
    });
    assert_eq!(made(&out), expected);
    assert_eq!(header(&out)["format"], "pt");
    // Elsewhere, under other names, later, and with another number of threads: the same bytes.
    let other = Scene::sound();
    adapter(0.5).save(&other.path("renamed"));
    let line = "merge ./base.safetensors ./adapter renamed -w 0.7 1 --module-weight q_proj=0.5 --threads 1";
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
    // Its bytes tell it, and no name; what lies elsewhere is named.
    std::fs::rename(scene.path("style"), scene.path("renamed")).expect("renamed");
    scene.runs("verify out.safetensors");
    std::fs::create_dir(scene.path("elsewhere")).expect("made");
    std::fs::rename(scene.path("renamed"), scene.path("elsewhere/style")).expect("renamed");
    let says = [
        "made of the adapter with `adapter_model.safetensors` of SHA-256",
        "neither beside it nor here",
        "--adapter",
    ];
    scene.refuses_late("verify out.safetensors", &says, "");
    scene.runs("verify out.safetensors --adapter adapter elsewhere/style");
    let says = ["go with --base and --adapter"];
    scene.refuses_late("verify out.safetensors --adapter adapter renamed -w 1 2", &says, "");
    // Other factors.
    adapter(0.75).save(&scene.path("style"));
    let mut command = crate::common::lora_tool();
    let line = ["verify", "out.safetensors", "--adapter", "adapter", "style"];
    let output = command.current_dir(scene.path("")).args(line).output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another `lora_tool`"), "{said}");
}

#[test]
fn two_bases_of_one_size_are_told_apart() {
    let scene = Scene::sound();
    scene.runs("merge base.safetensors adapter -o a_tuned_base.safetensors --no-provenance");
    scene.runs("merge base.safetensors adapter -w -1 -o out.safetensors");
    std::fs::rename(scene.path("base.safetensors"), scene.path("z.safetensors")).expect("renamed");
    std::fs::rename(scene.path("a_tuned_base.safetensors"), scene.path("base.safetensors"))
        .expect("renamed");
    let says = ["made of the base with `base.safetensors` of", "bytes", "--base"];
    scene.refuses_late("verify out.safetensors", &says, "");
    scene.runs("verify out.safetensors --base z.safetensors");
}

#[test]
fn a_name_in_a_header_is_no_path() {
    let scene = Scene::sound();
    std::fs::create_dir(scene.path("below")).expect("made");
    scene.runs("merge base.safetensors adapter -o out.safetensors");
    let text = header(&scene.path("out.safetensors"))["lora_tool"].clone();
    for name in ["../adapter/adapter_model.safetensors", "/etc/passwd", ".."] {
        let text = text.replace("\"adapter_model.safetensors\"", &format!("\"{name}\""));
        scene.runs(&format!(
            "metadata out.safetensors --set lora_tool={text} -o stranger.safetensors"
        ));
        let says = ["made of the adapter with", "neither beside it nor here"];
        scene.refuses_late("verify stranger.safetensors", &says, "");
        scene.remove("stranger.safetensors");
    }
    assert!(tree(&scene.path("")).len() > 3);
}
