//! Paths that merge must refuse: nothing there, something in the way, an input where the output would
//! go.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use crate::common::refusal::{Scene, TARGET, adapter, base, tree};
use crate::common::{Tensors, read};
use serde_json::json;

#[test]
fn paths_without_what_they_should_hold() {
    let scene = Scene::sound();
    scene.directory("empty");
    scene.write("config-only/adapter_config.json", r#"{"peft_type":"LORA"}"#);
    scene.directory("base-dir/model-00001-of-00001.safetensors");
    let index = json!({"weight_map": {TARGET: "model-00001-of-00001.safetensors"}});
    scene.write("base-dir/model.safetensors.index.json", index.to_string());
    let merge = |base: &str, adapter: &str| format!("merge {base} {adapter} -o out");
    let nothing = "no such file or directory";
    scene.refuses(&merge("nowhere", "adapter"), &["error: nowhere: ", nothing], "");
    scene.refuses(&merge("base.safetensors", "nowhere"), &["error: nowhere: ", nothing], "");
    scene.refuses(&merge("base.safetensors", "nowhere:0.5"), &["error: nowhere: ", nothing], "");
    scene.refuses(&merge("empty", "adapter"), &["empty: ", "no checkpoint"], "a checkpoint is");
    scene.refuses(&merge("base.safetensors", "empty"), &["empty: ", "no adapter"], "an adapter is");
    let without = ["config-only: ", "no adapter_model.safetensors"];
    scene.refuses(&merge("base.safetensors", "config-only"), &without, "an adapter is");
    let shard = ["base-dir/model-00001-of-00001.safetensors: ", "it is a directory"];
    scene.refuses(&merge("base-dir", "adapter"), &shard, "");
    let parent = ["error: no/where: ", "its directory no does not exist"];
    scene.refuses("merge base.safetensors adapter -o no/where", &parent, "mkdir -p no");
}

#[test]
fn an_output_that_exists_is_replaced_only_by_force() {
    let scene = Scene::sound();
    let reference = scene.path("reference");
    scene.runs("merge base.safetensors adapter -o reference");
    scene.write("file.safetensors", "old");
    scene.write("directory/notes.txt", "old");
    scene.directory("empty");
    for out in ["file.safetensors", "directory", "empty"] {
        let line = format!("merge base.safetensors adapter -o {out}");
        scene.refuses(&line, &[&format!("error: {out}: "), "it exists already"], "--force");
        scene.runs(&format!("{line} --force"));
        assert_eq!(read(&scene.path(out)), read(&reference), "{out}");
    }
    assert!(!scene.path("directory/notes.txt").exists(), "a directory is replaced as a whole");
    let left = tree(&scene.path(""));
    assert!(
        left.keys().all(|path| !path.to_string_lossy().contains("partial")),
        "{:?}",
        left.keys()
    );
    scene.directory("taken.safetensors");
    let line = "merge base.safetensors adapter -o taken.safetensors --force";
    scene.refuses(line, &["error: taken.safetensors: ", "directory"], "");
}

#[test]
fn inputs_are_never_outputs() {
    let scene = Scene::sound();
    let shards = Tensors::new().f32("other", &[1], &[1.0]);
    base().save(&scene.path("base/model-00001-of-00002.safetensors"));
    shards.save(&scene.path("base/model-00002-of-00002.safetensors"));
    let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let index = json!({"weight_map": {TARGET: first, "other": second}});
    scene.write("base/model.safetensors.index.json", index.to_string());
    adapter(0.5).save(&scene.path("more/second"));
    #[cfg(unix)]
    std::os::unix::fs::symlink("adapter", scene.path("link")).expect("linked");
    let cases = [
        ("base.safetensors adapter -o base.safetensors", "base.safetensors"),
        ("base.safetensors adapter -o ./adapter/../base.safetensors", "base.safetensors"),
        ("base.safetensors adapter -o adapter", "adapter"),
        ("base.safetensors adapter -o adapter/out", "adapter"),
        ("base.safetensors adapter -o base.safetensors/out", "base.safetensors"),
        ("base.safetensors adapter more/second -o more", "more/second"),
        ("base adapter -o base", "base"),
        ("base adapter -o base/merged.safetensors", "base"),
        ("base/model.safetensors.index.json adapter -o base", "base/model.safetensors.index.json"),
        (
            "base/model.safetensors.index.json adapter -o base/model-00001-of-00002.safetensors",
            "base/model-00001-of-00002.safetensors",
        ),
        (
            "base.safetensors adapter/adapter_model.safetensors -o adapter/adapter_config.json",
            "adapter/adapter_config.json",
        ),
        #[cfg(unix)]
        ("base.safetensors adapter -o link/out", "adapter"),
    ];
    for (line, input) in cases {
        let says = ["is, contains or lies inside the input", input];
        scene.refuses(&format!("merge {line} --force"), &says, "elsewhere");
    }
}

#[test]
fn an_index_in_the_working_directory_is_found() {
    let scene = Scene::sound();
    let index = json!({"weight_map": {TARGET: "base.safetensors"}});
    scene.write("model.safetensors.index.json", index.to_string());
    scene.write("config.json", "{}");
    let out = scene.directory("elsewhere").join("out");
    scene.runs(&format!("merge model.safetensors.index.json adapter -o {}", out.display()));
    assert!(out.join("config.json").exists());
}

#[test]
fn links_that_lead_in_a_circle() {
    let scene = Scene::sound();
    for (link, to) in
        [("first", "second"), ("second", "first"), ("d/model.safetensors", "model.safetensors")]
    {
        scene.directory("d");
        std::os::unix::fs::symlink(to, scene.path(link)).expect("a link");
    }
    let hint = "its links lead in a circle";
    scene.refuses_late("inspect first", &["first: "], hint);
    scene.refuses_late("merge first adapter -o out", &["first: "], hint);
    scene.refuses_late("inspect d", &["d/model.safetensors: "], hint);
}
