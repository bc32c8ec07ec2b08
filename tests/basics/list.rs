//! `list`: a row an adapter, conditions and orders, what is the same, and files that are no adapters.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::Path;

use crate::common::{Peft, Random, Tensors, lora_tool};
use lora_tool::format::Dtype;
use serde_json::Value;
use tempfile::TempDir;

const MODULE: &str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k";

fn run(folder: &Path, options: &[&str], code: i32) -> (String, String) {
    let output = lora_tool().arg("list").arg(folder).args(options).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{options:?}: {said:?}");
    said
}

fn listed(folder: &Path, options: &[&str]) -> Value {
    let options: Vec<&str> = options.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&run(folder, &options, 0).0).expect("one JSON object")
}

fn names(report: &Value) -> Vec<&str> {
    let rows = report["adapters"].as_array().expect("rows").iter();
    rows.map(|row| row["name"].as_str().expect("a name")).collect()
}

fn row<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut rows = report["adapters"].as_array().expect("rows").iter();
    rows.find(|row| row["name"] == name).expect("the row")
}

/// One cross-attention module of SDXL's width.
fn kohya(dtype: Dtype, rank: usize, alpha: f32, seed: u64, entries: &[(&str, &str)]) -> Tensors {
    let mut random = Random::new(seed);
    let mut tensors = Tensors::new()
        .float(
            &format!("{MODULE}.lora_down.weight"),
            dtype,
            &[rank, 2048],
            &random.values(rank * 2048, 1.0),
        )
        .float(
            &format!("{MODULE}.lora_up.weight"),
            dtype,
            &[32, rank],
            &random.values(32 * rank, 1.0),
        )
        .float(&format!("{MODULE}.alpha"), dtype, &[], &[alpha]);
    let header = tensors.metadata.get_or_insert_default();
    header.extend(entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    tensors
}

/// Ten files: adapters of two conventions, the same twice, and what is none.
fn folder() -> TempDir {
    let folder = TempDir::new().expect("a directory");
    let at = |name: &str| folder.path().join(name);
    let header = [
        ("modelspec.title", "Ink"),
        ("modelspec.trigger_phrase", "ink style"),
        ("modelspec.date", "2024-05-06T07:08:09"),
    ];
    let ink = kohya(Dtype::F16, 8, 4.0, 1, &header);
    ink.save(&at("style_10.safetensors"));
    kohya(Dtype::F16, 8, 4.0, 1, &[]).save(&at("style_2.safetensors"));
    kohya(Dtype::F16, 8, 8.0, 1, &[]).save(&at("louder.safetensors"));
    kohya(Dtype::F16, 4, 4.0, 2, &[]).save(&at("below/oil.safetensors"));
    let values = Random::new(3).values(16 * 8, 1.0);
    let chat = Peft::new(16, 32.0).field("use_rslora", true);
    let chat = chat.field("base_model_name_or_path", "org/Tiny-1B");
    chat.linear("model.layers.0.self_attn.q_proj", 16, &values, &values).save(&at("chat"));
    Tensors::new().f32("model.norm.weight", &[2], &[1.0, 2.0]).save(&at("base.safetensors"));
    std::fs::write(at("torn.safetensors"), &ink.bytes()[..100]).expect("written");
    std::fs::write(at("page.safetensors"), "<!DOCTYPE html><html></html>").expect("written");
    std::fs::write(at("old.pt"), "pickled").expect("written");
    std::fs::write(at("notes.txt"), "no weights").expect("written");
    std::fs::write(at(".style_2.safetensors.partial-1"), "hidden").expect("written");
    folder
}

#[test]
fn a_folder_is_rows_and_what_is_broken_is_told() {
    let folder = folder();
    let report = listed(folder.path(), &[]);
    let expected = [
        "below/oil.safetensors",
        "chat",
        "louder.safetensors",
        "style_2.safetensors",
        "style_10.safetensors",
    ];
    assert_eq!(names(&report), expected);
    let ink = row(&report, "style_10.safetensors");
    assert_eq!(ink["model"], "SDXL");
    assert_eq!(ink["title"], "Ink");
    assert_eq!(ink["trigger"], "ink style");
    assert_eq!(ink["date"], "2024-05-06");
    assert_eq!(ink["ranks"], serde_json::json!([8]));
    assert_eq!(ink["scale"], serde_json::json!({"least": 0.5, "most": 0.5, "rslora": false}));
    assert_eq!(ink["bytes"], 2 * (8 * 2048 + 32 * 8 + 1));
    assert_eq!(ink["parts"], serde_json::json!({"denoiser": 1}));
    assert!(ink.get("modules").is_some_and(Value::is_u64), "no list of modules");
    let chat = row(&report, "chat");
    assert_eq!(chat["model"], "Tiny-1B");
    assert_eq!(chat["scale"], serde_json::json!({"least": 8.0, "most": 8.0, "rslora": true}));
    let unread = report["unread"].as_array().expect("files");
    let why = |name: &str| {
        let one = unread.iter().find(|file| file["path"].as_str().expect("a path").ends_with(name));
        one.expect("the file")["error"].as_str().expect("a reason").to_owned()
    };
    assert_eq!(unread.len(), 4);
    assert!(why("page.safetensors").contains("HTML"), "{}", why("page.safetensors"));
    assert!(why("old.pt").contains("pickle"), "{}", why("old.pt"));
    assert!(!why("torn.safetensors").is_empty() && !why("base.safetensors").is_empty());
}

#[test]
fn the_same_factors_are_marked_whatever_the_header() {
    let folder = folder();
    let report = listed(folder.path(), &[]);
    assert_eq!(row(&report, "style_10.safetensors")["same_as"], "style_2.safetensors");
    for other in ["style_2.safetensors", "louder.safetensors", "below/oil.safetensors", "chat"] {
        assert!(row(&report, other).get("same_as").is_none(), "{other}");
    }
    // One bit at the end of the last tensor, beyond the bytes that are looked at first.
    let path = folder.path().join("style_2.safetensors");
    let mut bytes = std::fs::read(&path).expect("a file");
    let at = bytes.len() - 10;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let report = listed(folder.path(), &[]);
    assert!(row(&report, "style_10.safetensors").get("same_as").is_none());
}

#[test]
fn nearly_the_same_updates_are_found_in_other_factors() {
    let folder = TempDir::new().expect("a directory");
    let at = |name: &str| folder.path().join(name);
    kohya(Dtype::F32, 8, 8.0, 1, &[]).save(&at("a.safetensors"));
    kohya(Dtype::BF16, 8, 8.0, 1, &[]).save(&at("b.safetensors"));
    kohya(Dtype::F32, 8, 8.0, 2, &[]).save(&at("c.safetensors"));
    // Another convention, and factors of the double rank, half of them zeros.
    for arguments in [vec!["convert", "--to", "diffusers"], vec!["resize", "--rank", "lossless"]] {
        let output = at(&format!("{}.safetensors", arguments[0]));
        let mut command = lora_tool();
        command.args(&arguments).arg(at("a.safetensors")).arg("-o").arg(output).assert().success();
    }
    let plain = listed(folder.path(), &[]);
    let marked = |report: &Value| -> Vec<String> {
        let rows = report["adapters"].as_array().expect("rows").iter();
        let marked = rows.filter(|row| row.get("like").is_some());
        marked.map(|row| row["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert!(marked(&plain).is_empty());
    let alike = listed(folder.path(), &["--alike"]);
    assert_eq!(marked(&alike), ["b.safetensors", "convert.safetensors", "resize.safetensors"]);
    let distance = |name: &str| row(&alike, name)["like"]["distance"].as_f64().expect("a distance");
    assert!(distance("convert.safetensors") < 1e-6 && distance("resize.safetensors") < 1e-6);
    assert!((1e-4..1e-2).contains(&distance("b.safetensors")), "{}", distance("b.safetensors"));
}

#[test]
fn rows_are_chosen_and_sorted() {
    let folder = folder();
    let of = |options: &[&str]| names(&listed(folder.path(), options)).join(" ");
    std::fs::copy(
        folder.path().join("style_2.safetensors"),
        folder.path().join("style_2-copy.safetensors"),
    )
    .expect("copied");
    assert_eq!(
        of(&["--where", "name~style_2"]),
        "style_2.safetensors style_2-copy.safetensors",
        "the original before its copy"
    );
    std::fs::remove_file(folder.path().join("style_2-copy.safetensors")).expect("removed");
    assert_eq!(of(&["--where", "rank>8"]), "chat");
    assert_eq!(of(&["--where", "family~sdxl", "--where", "rank<8"]), "below/oil.safetensors");
    assert_eq!(of(&["--where", "title=ink"]), "style_10.safetensors");
    assert_eq!(
        of(&["--where", "base!=org/tiny-1b", "--where", "scale=1"]),
        "below/oil.safetensors louder.safetensors"
    );
    assert_eq!(of(&["--where", "size>1GB"]), "");
    assert_eq!(listed(folder.path(), &["--where", "size>1GB"])["left_out"], 5);
    let sorted = of(&["--sort", "-rank"]);
    assert!(sorted.starts_with("chat ") && sorted.ends_with("below/oil.safetensors"), "{sorted}");
    let sorted = of(&["--sort", "title"]);
    assert!(sorted.starts_with("style_10"), "those without a title come last: {sorted}");
    let (_, error) = run(folder.path(), &["--where", "rnk>8"], 2);
    assert!(error.contains("no field `rnk`") && error.contains("rank"), "{error}");
    let (_, error) = run(folder.path(), &["--sort", "rnk"], 2);
    assert!(error.contains("no field `rnk`"), "{error}");
}

#[test]
fn a_table_fits_80_columns_and_inspect_shows_it_too() {
    let folder = folder();
    let (text, _) = run(folder.path(), &["--where", "name!~chat"], 0);
    let rows = text.lines().take_while(|line| !line.contains("adapters, "));
    for line in rows {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for part in
        ["“Ink” · trigger: ink style", "= style_2.safetensors", "1 left out by --where", "HTML"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let (all, _) = run(folder.path(), &[], 0);
    assert!(all.contains("8 rslora"), "{all}");
    let output = lora_tool().arg("inspect").arg(folder.path()).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), all);
    let (_, error) = run(&folder.path().join("nowhere"), &[], 2);
    assert!(error.contains("nowhere"), "{error}");
}
