//! `inspect`: what it finds in adapters and checkpoints, sound and broken ones, and how it says so.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::Path;

use crate::common::{Bench, Peft, Tensors, fixture, lora_tool};
use lora_tool::format::{Dtype, Metadata};
use serde_json::{Value, json};

fn run(paths: &[&Path], options: &str, code: i32) -> (String, String) {
    let mut command = lora_tool();
    command.arg("inspect").args(paths).args(options.split_whitespace());
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{paths:?} {options}: {said:?}");
    said
}

/// The items of `inspect --json`.
fn items(paths: &[&Path], options: &str) -> Vec<Value> {
    let (text, _) = run(paths, &format!("{options} --json"), 0);
    let report: Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(report["tool"], "lora-tool");
    assert_eq!(report["command"], "inspect");
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report.as_object().map(serde_json::Map::len), Some(4));
    report["items"].as_array().expect("items").clone()
}

fn item(path: &Path, options: &str) -> Value {
    items(&[path], options).remove(0)
}

fn warnings(item: &Value) -> Vec<&str> {
    item["warnings"].as_array().expect("warnings").iter().filter_map(Value::as_str).collect()
}

/// Fails unless exactly one warning holds all of the words.
fn assert_warns(item: &Value, words: &[&str]) {
    let said = |warning: &&&str| words.iter().all(|word| warning.contains(word));
    assert_eq!(
        warnings(item).iter().filter(said).count(),
        1,
        "{words:?} in {:?}",
        item["warnings"]
    );
}

#[test]
fn items_have_the_documented_fields() {
    let fields = "path kind convention base_model parameters bytes dtypes ranks modules metadata";
    let paths = ["style", "kohya.safetensors", "base"].map(|name| fixture("llama").join(name));
    let items = items(&paths.each_ref().map(std::path::PathBuf::as_path), "");
    for (item, path) in items.iter().zip(&paths) {
        for field in fields.split(' ').chain(["warnings"]) {
            assert!(item.get(field).is_some(), "{field} of {}", path.display());
        }
        assert_eq!(item["path"], path.to_string_lossy().as_ref());
    }
    assert_eq!((&items[1]["base_model"], &items[2]["modules"]), (&Value::Null, &Value::Null));
    let style = &items[0];
    assert_eq!((&style["kind"], &style["convention"]), (&json!("adapter"), &json!("peft")));
    assert_eq!(style["base_model"], "fixtures/llama/base");
    assert_eq!((&style["dtypes"], &style["ranks"]), (&json!({"F32": 28}), &json!({"8": 14})));
    assert_eq!((&style["metadata"], &style["warnings"]), (&json!({"format": "pt"}), &json!([])));
    assert_eq!((&style["parameters"], &style["bytes"]), (&json!(14848), &json!(4 * 14848)));
    assert_eq!(style["modules"].as_array().map(Vec::len), Some(14));
    let module = json!({
        "name": "model.layers.0.mlp.down_proj", "family": "lora", "kind": "linear", "rank": 8,
        "alpha": 16.0, "scale": 2.0, "scale_source": "adapter_config.json", "in": 96, "out": 64,
        "dtype": "F32",
    });
    assert_eq!(style["modules"][0], module);
}

#[test]
fn scales_say_where_they_are_from() {
    let task = item(&fixture("llama/task"), "");
    assert_eq!(task["modules"][0]["scale"], 2.0, "alpha 4 over the root of rank 4");
    let kohya = item(&fixture("llama/kohya.safetensors"), "");
    assert_eq!((&kohya["kind"], &kohya["convention"]), (&json!("adapter"), &json!("kohya")));
    assert_eq!(
        kohya["modules"][1],
        json!({
            "name": "lora_unet_model_layers_1_self_attn_q_proj", "family": "lora", "kind": "linear",
            "rank": 4, "alpha": 2.0, "scale": 0.5, "scale_source": "the alpha tensor", "in": 64,
            "out": 64, "dtype": "F32",
        })
    );
    let bench = Bench::new();
    let mut file = Tensors::new()
        .float("lora_unet_a.lora_down.weight", Dtype::F16, &[2, 3, 3, 3], &[1.0; 54])
        .float("lora_unet_a.lora_up.weight", Dtype::F16, &[5, 2, 1, 1], &[1.0; 10])
        .float("lora_unet_a.lora_magnitude_vector", Dtype::F16, &[5], &[1.0; 5]);
    let tags = "tag ".repeat(100);
    let metadata =
        [("ss_base_model_version", "sdxl_base_v1-0"), ("ss_tag_frequency", tags.as_str())];
    file.metadata = Some(Metadata::from_iter(metadata.map(|(k, v)| (k.to_owned(), v.to_owned()))));
    let item = item(&file.save(&bench.path("lora.safetensors")), "");
    assert_eq!(item["base_model"], "sdxl_base_v1-0");
    assert_eq!(
        item["modules"][0],
        json!({
            "name": "lora_unet_a", "family": "dora", "kind": "conv", "rank": 2, "alpha": null,
            "scale": 1.0, "scale_source": "no alpha, which means scale 1", "in": 27, "out": 5,
            "dtype": "F16",
        })
    );
    let tags = item["metadata"]["ss_tag_frequency"].as_str().expect("a text");
    assert!(tags.len() < 300 && tags.ends_with("(400 characters)"), "{tags}");
}

#[test]
fn faults_of_modules_are_warnings() {
    let bench = Bench::new();
    let adapter = Peft::new(2, 4.0)
        .linear("layers.0.q", 2, &[0.5; 6], &[0.5; 8])
        .tensor("layers.1.q.lora_A.weight", &[0], &[])
        .tensor("layers.1.q.lora_B.weight", &[0], &[])
        .tensor("layers.2.q.lora_A.weight", &[2, 3], &[0.5; 6])
        .tensor("layers.3.q.lora_B.weight", &[4, 2], &[0.5; 8])
        .linear("layers.4.q", 1, &[0.5; 3], &[0.5; 4])
        .tensor("layers.5.q.lora_A.default.weight", &[2, 3], &[f32::NAN; 6])
        .tensor("layers.5.q.lora_B.default.weight", &[4, 2], &[0.5; 8])
        .tensor("_orig_mod.layers.6.q.lora_A.weight", &[2, 3], &[0.5; 6])
        .tensor("_orig_mod.layers.6.q.lora_B.weight", &[4, 2], &[0.5; 8])
        .tensor("layers.7.q.hada_w1_a", &[2, 3], &[0.5; 6])
        .tensor("head.modules_to_save.default.weight", &[2], &[1.0; 2])
        .tensor("head.original_module.weight", &[2], &[1.0; 2])
        .save(&bench.path("adapter"));
    let item = item(&adapter, "");
    let names = item["modules"].as_array().expect("modules").iter().map(|m| m["name"].clone());
    assert_eq!(names.collect::<Vec<_>>(), ["layers.0.q", "layers.5.q", "layers.6.q"]);
    assert_eq!(item["replacements"], json!([{"name": "head.weight"}]));
    assert_warns(&item, &["layers.1.q", "empty", "ZeRO-3"]);
    assert_warns(&item, &["layers.2.q", "no B"]);
    assert_warns(&item, &["layers.3.q", "no A"]);
    assert_warns(&item, &["layers.4.q", "rank 1", "config says 2"]);
    assert_warns(&item, &["layers.7.q", "hada_w1_b"]);
    assert_warns(&item, &["1 copies of base tensors"]);
    assert_warns(&item, &["3 names", "leaked `default`"]);
    assert_warns(&item, &["2 names", "leaked `_orig_mod`"]);
    assert_warns(&item, &["1 names", "leaked `modules_to_save`"]);
    assert_warns(&item, &["`target_modules` promise", "q_proj"]);
    assert_eq!(warnings(&item).len(), 10, "{:?}", warnings(&item));
    let (text, _) = run(&[&adapter], "", 0);
    assert!(text.contains("layers.1.q") && text.contains("ZeRO-3"), "{text}");
}

#[test]
fn modules_land_on_the_base_or_are_said_not_to() {
    let base = fixture("llama/base");
    let [style, kohya] = ["style", "kohya.safetensors"].map(|name| fixture("llama").join(name));
    let against = format!("--against {}", base.display());
    let items = items(&[&style, &kohya], &against);
    assert_eq!(items[0]["modules"][0]["base_tensor"], "model.layers.0.mlp.down_proj.weight");
    assert_eq!(items[1]["modules"][1]["base_tensor"], "model.layers.1.self_attn.q_proj.weight");
    let share = items[0]["share_of_base"].as_f64().expect("a share");
    let all = item(&base, "")["parameters"].as_f64().expect("a count");
    assert!((share - 14848.0 / all).abs() < 1e-9, "{share}");
    let (text, _) = run(&[&style], &format!("--modules {against}"), 0);
    let row = text.lines().find(|line| line.contains("0.mlp.down_proj")).expect("a row");
    let row: Vec<&str> = row.split_whitespace().collect();
    let tensor = "model.layers.0.mlp.down_proj.weight";
    assert_eq!(row[1..], ["lora", "8", "16", "2", "96", "64", "F32", tensor]);
    let (text, _) = run(&[&style], "", 0);
    assert!(!text.contains("layers.0.mlp.down_proj"), "modules are listed on demand: {text}");
    let bench = Bench::new();
    let stray = Peft::new(1, 1.0)
        .linear("model.layers.0.self_attn.q_proj", 1, &[1.0; 64], &[1.0; 64])
        .linear("model.layers.9.self_attn.q_proj", 1, &[1.0; 64], &[1.0; 64])
        .save(&bench.path("stray"));
    let item = item(&stray, &against);
    assert_eq!(item["modules"][0]["base_tensor"], "model.layers.0.self_attn.q_proj.weight");
    assert_eq!(item["modules"][1].get("base_tensor"), None);
    assert_warns(&item, &["layers.9.self_attn.q_proj", "fits nothing", "nearest"]);
    assert_eq!(warnings(&item).len(), 1);
}

#[test]
fn a_tied_head_is_a_place_to_land() {
    let bench = Bench::new();
    let base = bench.path("base");
    Tensors::new()
        .f32("model.embed_tokens.weight", &[3, 2], &[1.0; 6])
        .save(&base.join("model.safetensors"));
    let config = r#"{"architectures": ["TinyForCausalLM"], "tie_word_embeddings": true}"#;
    std::fs::write(base.join("config.json"), config).expect("written");
    assert_warns(&item(&base, ""), &["head is tied"]);
    let adapter = Peft::new(1, 1.0).linear("lm_head", 1, &[1.0; 2], &[1.0; 3]);
    let adapter = adapter.save(&bench.path("adapter"));
    let item = item(&adapter, &format!("--against {}", base.display()));
    assert_eq!(item["modules"][0]["base_tensor"], "lm_head.weight");
    assert_eq!(item["warnings"], json!([]));
}

#[test]
fn checkpoints_of_every_layout() {
    let base = fixture("llama/base");
    let item = item(&base, "");
    assert_eq!((&item["kind"], &item["tensors"]), (&json!("checkpoint"), &json!(21)));
    assert_eq!((&item["dtypes"], &item["warnings"]), (&json!({"BF16": 21}), &json!([])));
    assert_eq!(item["bytes"].as_u64(), item["parameters"].as_u64().map(|count| 2 * count));
    let files = item["shards"].as_array().expect("shards").iter().map(|shard| &shard["file"]);
    let expected = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    assert_eq!(files.collect::<Vec<_>>(), expected);
    let index = items(&[&base.join("model.safetensors.index.json")], "").remove(0);
    assert_eq!(index["shards"], item["shards"]);
    let shard = items(&[&base.join(expected[0])], "").remove(0);
    assert_eq!((&shard["kind"], &shard["tensors"]), (&json!("checkpoint"), &json!(10)));
    let pipeline = items(&[&fixture("golden/merge_kohya_model/input")], "").remove(0);
    assert_eq!(pipeline["kind"], "checkpoint");
    assert_warns(&pipeline, &["a pipeline of text_encoder, unet"]);
    assert_eq!(pipeline["shards"].as_array().map(Vec::len), Some(2));
}

#[test]
fn quantised_weights_are_said_to_be() {
    let bench = Bench::new();
    let file = Tensors::new()
        .raw("a.weight", Dtype::F8_E4M3, &[1, 2], &[1, 2])
        .f32("a.weight_scale", &[1], &[1.0])
        .raw("b.weight", Dtype::I8, &[1, 2], &[1, 2])
        .f32("b.SCB", &[1], &[1.0])
        .f32("norm.weight", &[2], &[1.0, 2.0])
        .save(&bench.path("fp8.safetensors"));
    let item = item(&file, "");
    assert_eq!(item["warnings"], json!([]));
    assert_eq!(item["dtypes"], json!({"F32": 3, "F8_E4M3": 1, "I8": 1}));
    let encodings = item["encodings"].as_array().expect("a list").iter();
    let found: Vec<_> = encodings.map(|group| [&group["encoding"], &group["bits"]]).collect();
    let expected = [["bnb_int8", "24.0"], ["fp8_scaled", "24.0"], ["plain", "32.0"]];
    let expected = expected.map(|[name, bits]| [json!(name), bits.parse().expect("a number")]);
    assert_eq!(found, expected.each_ref().map(|group| [&group[0], &group[1]]));
    assert_eq!(item["parameters"], 6);
}

#[test]
fn a_checkpoint_is_not_taken_for_an_adapter_nor_the_reverse() {
    let bench = Bench::new();
    let checkpoint = Tensors::new()
        .f32("model.diffusion_model.out.2.weight", &[2], &[1.0; 2])
        .f32("first_stage_model.decoder.act.alpha", &[1], &[1.0])
        .save(&bench.path("sd.safetensors"));
    assert_eq!(item(&checkpoint, "")["kind"], "checkpoint");
    // Alone in a directory, as it comes from a hub; `merge` takes the directory as well.
    let kohya = bench.path("repository/lora.safetensors");
    std::fs::create_dir_all(bench.path("repository")).expect("a directory");
    std::fs::copy(fixture("llama/kohya.safetensors"), &kohya).expect("copied");
    assert_eq!(item(&bench.path("repository"), "")["kind"], "adapter");
}

#[test]
fn ten_thousand_tensors_are_counted() {
    let bench = Bench::new();
    let mut file = Tensors::new();
    for at in 0..10_000u32 {
        let name = format!("layers.{}.experts.{}.weight", at / 100, at % 100);
        file = match at % 4 {
            0 => file.float(&name, Dtype::F32, &[1, 3], &[1.0; 3]),
            1 => file.raw(&name, Dtype::I64, &[], &[0; 8]),
            _ => file.float(&name, Dtype::BF16, &[2], &[1.0; 2]),
        };
    }
    let path = file.save(&bench.path("model.safetensors"));
    let item = item(&path, "");
    assert_eq!(item["tensors"], 10_000);
    assert_eq!(item["dtypes"], json!({"BF16": 5000, "F32": 2500, "I64": 2500}));
    assert_eq!(item["parameters"], 2500 * 3 + 2500 + 5000 * 2);
    assert_eq!(item["bytes"], 2500 * 12 + 2500 * 8 + 5000 * 4);
    let (text, _) = run(&[&path], "", 0);
    assert!(text.contains("10000 (BF16 ×5000, F32 ×2500, I64 ×2500)"), "{text}");
}

#[test]
fn what_is_neither_cannot_be_inspected() {
    let bench = Bench::new();
    std::fs::write(bench.path("text.safetensors"), "not a header at all").expect("written");
    std::fs::write(bench.path("weights.bin"), "PK").expect("written");
    for name in ["text.safetensors", "weights.bin", "nothing", ""] {
        let (text, said) = run(&[&bench.path(name)], "--json", 2);
        let answer: Value = serde_json::from_str(&text).expect("an error as JSON");
        assert_eq!(answer["exit_code"], 2, "{name}: {text}");
        assert!(said.starts_with("error:"), "{name}: {said}");
    }
}
