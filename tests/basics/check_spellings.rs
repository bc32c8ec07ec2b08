//! What `check` says of every spelling of the models' modules: for diffusers what its own functions make of
//! them (diffusers 0.42.0, run on adapters of all modules of each list), for ComfyUI what its map of keys has.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::keys::{Line, real};
use crate::common::lora_tool;
use serde_json::{Map, Value, json};

/// How the file's tensors are named.
struct Spelling {
    prefix: &'static str,
    /// With underscores for dots.
    flat: bool,
    /// By the names of the published checkpoint.
    published: bool,
    ends: [&'static str; 2],
    alphas: bool,
}

const NEW: [&str; 2] = ["lora_A", "lora_B"];
const OLD: [&str; 2] = ["lora_down", "lora_up"];

/// `dm`, `bare`, `dm` of the older form with alphas, kohya's, `dm` in diffusers' names, diffusers' own.
const SPELLINGS: [Spelling; 6] = [
    Spelling { prefix: "diffusion_model.", flat: false, published: true, ends: NEW, alphas: false },
    Spelling { prefix: "", flat: false, published: true, ends: NEW, alphas: false },
    Spelling { prefix: "diffusion_model.", flat: false, published: true, ends: OLD, alphas: true },
    Spelling { prefix: "lora_unet_", flat: true, published: true, ends: OLD, alphas: true },
    Spelling {
        prefix: "diffusion_model.",
        flat: false,
        published: false,
        ends: NEW,
        alphas: false,
    },
    Spelling { prefix: "transformer.", flat: false, published: false, ends: NEW, alphas: false },
];

/// An adapter of rank 1 of all modules of a list, or of those that a name has.
fn made(path: &Path, lines: &[Line], own: &Spelling) -> PathBuf {
    let modules: BTreeMap<String, (usize, usize)> = lines
        .iter()
        .map(|line| {
            let tensor = line.tensor.strip_suffix(".weight").expect("a weight");
            let (stem, shape) = match own.published {
                true => (tensor, (line.rows, line.columns)),
                false => (line.module.as_str(), line.shape()),
            };
            let stem = if own.flat { stem.replace('.', "_") } else { stem.to_owned() };
            (format!("{}{stem}", own.prefix), shape)
        })
        .collect();
    let (mut header, mut at) = (Map::new(), 0);
    let mut add = |name: String, dtype: &str, shape: &[usize], bytes: usize| {
        let end = at + shape.iter().product::<usize>() * bytes;
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [at, end] });
        header.insert(name, entry);
        at = end;
    };
    for (name, (outputs, inputs)) in modules {
        let [down, up] = own.ends.map(|end| format!("{name}.{end}.weight"));
        add(down, "BF16", &[1, inputs], 2);
        add(up, "BF16", &[outputs, 1], 2);
        if own.alphas {
            add(format!("{name}.alpha"), "F32", &[], 4);
        }
    }
    let mut text = Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    // 0.747 in both dtypes: what the numbers are is not the question.
    bytes.resize(bytes.len() + at, 0x3f);
    std::fs::write(path, bytes).expect("written");
    path.to_owned()
}

fn verdict(path: &Path, program: &str) -> String {
    let mut command = lora_tool();
    command.arg("check").arg(path).args(["--for", program, "--json"]);
    let done = command.output().expect("it runs");
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    report["programs"][0]["verdict"].as_str().expect("a verdict").to_owned()
}

const ALL: &str = "loads";
const NONE: &str = "no effect";
const PART: &str = "partly ignored";
const REFUSED: &str = "refused";
const SCALED: &str = "scaled wrongly";
const ELSEWHERE: &str = "lands elsewhere";
const UNKNOWN: &str = "unknown";

type Row = (&'static str, [&'static str; 6]);

const DIFFUSERS: [Row; 18] = [
    ("flux1", [NONE, NONE, PART, PART, NONE, ALL]),
    ("chroma", [NONE, NONE, REFUSED, REFUSED, NONE, ALL]),
    ("flux2_klein_4b", [ELSEWHERE, NONE, NONE, PART, REFUSED, ALL]),
    ("flux3", [ALL, NONE, REFUSED, NONE, ALL, ALL]),
    ("ltx_video", [PART, NONE, REFUSED, NONE, ALL, ALL]),
    ("ltx2", [ALL, NONE, REFUSED, NONE, ALL, ALL]),
    ("krea2", [ALL, NONE, REFUSED, NONE, REFUSED, ALL]),
    ("ideogram4", [REFUSED, REFUSED, REFUSED, NONE, REFUSED, ALL]),
    // Anima's pipeline converts them, Cosmos' does not, and their names are the same.
    ("cosmos_predict2_2b", [UNKNOWN, NONE, NONE, NONE, UNKNOWN, ALL]),
    ("cosmos_predict1_7b", [NONE, NONE, NONE, NONE, NONE, ALL]),
    ("auraflow", [NONE, NONE, NONE, NONE, NONE, ALL]),
    ("hunyuan_video_official", [REFUSED, REFUSED, REFUSED, REFUSED, NONE, ALL]),
    ("z_image", [PART, NONE, PART, PART, ALL, ALL]),
    ("minimax_h3", [ALL, ALL, ALL, ALL, REFUSED, ALL]),
    ("wan_vace_14b", [REFUSED, NONE, REFUSED, REFUSED, REFUSED, ALL]),
    ("skyreels_v2", [REFUSED, NONE, REFUSED, REFUSED, REFUSED, ALL]),
    ("kandinsky5", [NONE, NONE, NONE, NONE, NONE, ALL]),
    ("qwen_image", [ALL, NONE, ALL, ALL, ALL, ALL]),
];

const COMFYUI: [Row; 16] = [
    ("flux1", [ALL, NONE, ALL, ALL, NONE, ALL]),
    ("flux2_dev", [ALL, NONE, ALL, ALL, NONE, PART]),
    ("ltx_video", [ALL, ALL, ALL, ALL, PART, NONE]),
    ("ltx2", [ALL, ALL, ALL, ALL, PART, NONE]),
    ("krea2", [ALL, ALL, ALL, ALL, ALL, ALL]),
    ("ideogram4", [ALL, NONE, ALL, ALL, PART, NONE]),
    ("cosmos_predict2_2b", [ALL, NONE, ALL, ALL, NONE, NONE]),
    ("cosmos_predict1_7b", [ALL, NONE, ALL, ALL, NONE, NONE]),
    ("auraflow", [ALL, NONE, ALL, ALL, NONE, ALL]),
    ("hunyuan_video", [ALL, NONE, ALL, ALL, NONE, NONE]),
    ("z_image", [ALL, ALL, ALL, ALL, ALL, ALL]),
    ("minimax_h3", [ALL, ALL, ALL, ALL, NONE, NONE]),
    ("wan2_i2v_14b", [ALL, NONE, ALL, ALL, PART, NONE]),
    ("kandinsky5", [ALL, ALL, ALL, ALL, ALL, ALL]),
    ("qwen_image", [ALL, ALL, ALL, ALL, ALL, ALL]),
    // No class of its own there.
    ("flux3", [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]),
];

fn wrong(program: &str, table: &[Row]) -> Vec<String> {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("a.safetensors");
    let mut wrong = Vec::new();
    for (list, expected) in table {
        let lines = real(list);
        for (own, expected) in SPELLINGS.iter().zip(expected) {
            let found = verdict(&made(&path, &lines, own), program);
            if found != *expected {
                let spelled = (own.prefix, own.published, own.ends[0]);
                wrong.push(format!("{list} {spelled:?}: {found}, not {expected}"));
            }
        }
    }
    wrong
}

#[test]
fn diffusers_does_with_every_spelling_what_its_functions_do() {
    assert_eq!(wrong("diffusers", &DIFFUSERS), Vec::<String>::new());
}

#[test]
fn comfyui_does_with_every_spelling_what_its_map_of_keys_says() {
    assert_eq!(wrong("comfyui", &COMFYUI), Vec::<String>::new());
}

/// Blocks alone, as most trainers train them.
#[test]
fn diffusers_takes_blocks_where_it_refuses_whole_models() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("a.safetensors");
    let [dm, _, old, kohya, ..] = &SPELLINGS;
    for (list, kept, own, expected) in [
        ("wan2_t2v_14b", "blocks.", dm, ALL),
        ("wan2_t2v_14b", "blocks.", old, ALL),
        ("wan2_t2v_14b", "blocks.", kohya, ALL),
        // Of a block all ten are asked for.
        ("wan2_t2v_14b", ".attn1.", kohya, REFUSED),
        ("ideogram4", "layers.", dm, ALL),
        ("flux1", "transformer_blocks.", kohya, ALL),
        ("z_image", "layers.", kohya, ALL),
        ("z_image", ".attention.", dm, NONE),
        ("hunyuan_video_official", "transformer_blocks.", dm, ALL),
        ("hunyuan_video_official", "transformer_blocks.", kohya, REFUSED),
        ("flux2_klein_9b", "attn.", dm, ALL),
    ] {
        let lines: Vec<Line> = real(list)
            .into_iter()
            .filter(|line| {
                line.module.contains(kept) && !line.module.starts_with("context_embedder")
            })
            .collect();
        let found = verdict(&made(&path, &lines, own), "diffusers");
        assert_eq!(found, expected, "{list} {kept} {:?}", (own.prefix, own.ends[0]));
    }
}

/// Before the release that converts a model's names all of them are lost; its own names are not.
#[test]
fn older_releases_of_diffusers_convert_less() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("a.safetensors");
    let [dm, _, _, kohya, _, own] = &SPELLINGS;
    for (list, spelling, version, expected) in [
        ("qwen_image", dm, "0.35.1", NONE),
        ("qwen_image", dm, "0.35.2", ALL),
        ("krea2", dm, "0.38", NONE),
        ("krea2", dm, "0.39", ALL),
        ("ltx2", dm, "0.36.0", NONE),
        ("ltx2", dm, "0.37.0", ALL),
        ("flux2_dev", kohya, "0.37.1", NONE),
        ("flux2_dev", kohya, "0.38.0", PART),
        ("minimax_h3", dm, "0.39.0", NONE),
        ("flux3", dm, "0.41", NONE),
        ("flux3", own, "0.41", ALL),
    ] {
        let file = made(&path, &real(list), spelling);
        let found = verdict(&file, &format!("diffusers@{version}"));
        assert_eq!(found, expected, "{list} {version}");
    }
}

/// Alphas beside `lora_A` and `lora_B`.
#[test]
fn diffusers_drops_alphas_of_some_and_folds_those_of_others() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("a.safetensors");
    let with =
        |prefix, published| Spelling { prefix, flat: false, published, ends: NEW, alphas: true };
    for (list, prefix, published, expected) in [
        ("ltx2", "diffusion_model.", true, SCALED),
        ("flux3", "diffusion_model.", true, SCALED),
        ("qwen_image", "diffusion_model.", true, ALL),
        ("krea2", "diffusion_model.", true, REFUSED),
        ("flux2_dev", "diffusion_model.", true, REFUSED),
        ("krea2", "transformer.", false, SCALED),
        ("auraflow", "transformer.", false, SCALED),
        ("flux1", "transformer.", false, ALL),
        ("qwen_image", "transformer.", false, NONE),
        ("z_image", "transformer.", false, NONE),
    ] {
        let file = made(&path, &real(list), &with(prefix, published));
        assert_eq!(verdict(&file, "diffusers"), expected, "{list} {prefix}");
        // What is converted is right, whatever it was.
        let out = scratch.path().join("out.safetensors");
        let mut command = lora_tool();
        command.arg("convert").arg(&file).args(["--for", "diffusers", "--force", "-o"]).arg(&out);
        command.assert().success();
        assert_eq!(verdict(&out, "diffusers"), ALL, "{list} {prefix}");
    }
}
