//! Adapters of one model whose names differ by the trainer, the convention or the release: every verb that puts
//! modules of several adapters together takes the same modules for the same ones, and adapters of two models
//! for what they are.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use crate::common::dense::{deltas, relative_error};
use crate::common::made::{How, Workshop};
use crate::common::{lora_tool, read};
use serde_json::Value;

/// Runs a command; its code, what it printed, what it said.
fn run(line: &str, paths: &[&Path]) -> (Option<i32>, String, String) {
    let mut words = line.split(' ');
    let mut command = lora_tool();
    command.arg(words.next().expect("a verb")).args(paths).args(words);
    let done = command.output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

/// That two adapters are one: as `diff`, `compare` and `combine` see it.
#[track_caller]
fn one(workshop: &Workshop, first: &Path, second: &Path, modules: usize) {
    let (code, printed, said) = run("diff", &[first, second]);
    assert_eq!(code, Some(0), "{printed}{said}");
    let (code, printed, said) = run("compare --json", &[first, second]);
    assert_eq!(code, Some(0), "{said}");
    let report: Value = serde_json::from_str(&printed).expect("JSON");
    let pair = &report["pairs"][0];
    assert_eq!(pair["shared_modules"].as_u64(), Some(modules as u64), "{pair}");
    let cosine = pair["cosine"].as_f64().expect("a number");
    assert!((cosine - 1.0).abs() < 1e-9, "{cosine}");
    let halves = workshop.path("halves.safetensors");
    let to = halves.to_string_lossy().into_owned();
    let line = format!("combine --to kohya --force -w 0.5 0.5 -o {to}");
    let (code, _, said) = run(&line, &[first, second]);
    assert_eq!(code, Some(0), "{said}");
    let (code, printed, said) = run("diff", &[&halves, first]);
    assert_eq!(code, Some(0), "{printed}{said}");
}

const SDXL: [(&str, usize, usize, usize); 6] = [
    ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", 12, 8, 2),
    ("lora_unet_input_blocks_7_1_transformer_blocks_1_attn2_to_out_0", 8, 12, 3),
    ("lora_unet_middle_block_1_transformer_blocks_0_ff_net_2", 10, 6, 2),
    ("lora_te1_text_model_encoder_layers_0_mlp_fc1", 14, 6, 2),
    ("lora_te2_text_model_encoder_layers_0_mlp_fc1", 9, 5, 2),
    ("lora_te2_text_model_encoder_layers_11_self_attn_q_proj", 5, 5, 2),
];

fn converted(from: &Path, to: &str, output: PathBuf) -> PathBuf {
    let path = output.to_string_lossy().into_owned();
    let (code, _, said) = run(&format!("convert --to {to} -o {path}"), &[from]);
    assert_eq!(code, Some(0), "{said}");
    output
}

#[test]
fn an_image_model_in_every_convention_is_one() {
    let workshop = Workshop::new();
    let kohya = workshop.kohya("kohya.safetensors", 1, &SDXL, 1.5);
    let diffusers = converted(&kohya, "diffusers", workshop.path("diffusers.safetensors"));
    let comfyui = converted(&kohya, "comfyui", workshop.path("comfyui.safetensors"));
    for (first, second) in
        [(&kohya, &diffusers), (&diffusers, &kohya), (&diffusers, &comfyui), (&comfyui, &kohya)]
    {
        one(&workshop, first, second, SDXL.len());
    }
}

#[test]
fn one_convention_with_two_layouts_is_one() {
    let workshop = Workshop::new();
    let unet = &SDXL[..3];
    let kohya = workshop.kohya("kohya.safetensors", 1, unet, 1.5);
    // The same numbers below the names that diffusers has, flattened.
    let renamed = unet.iter().zip([
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_down_blocks_2_attentions_0_transformer_blocks_1_attn2_to_out_0",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2",
    ]);
    let renamed: Vec<_> = renamed.map(|(own, name)| (name, own.1, own.2, own.3)).collect();
    let other = workshop.kohya("other.safetensors", 1, &renamed, 1.5);
    one(&workshop, &kohya, &other, unet.len());
    one(&workshop, &other, &kohya, unet.len());
}

#[test]
fn releases_of_transformers_are_one() {
    let workshop = Workshop::new();
    let old = [
        ("model.layers.0.self_attn.q_proj", 8, 6, 2),
        ("visual.blocks.0.attn.proj", 5, 5, 2),
        ("lm_head", 12, 6, 2),
    ];
    let new = [
        ("model.language_model.layers.0.self_attn.q_proj", 8, 6, 2),
        ("model.visual.blocks.0.attn.proj", 5, 5, 2),
        ("lm_head", 12, 6, 2),
    ];
    let first = workshop.peft("old", 1, &old, How::default());
    let second = workshop.peft("new", 1, &new, How::default());
    for (first, second) in [(&first, &second), (&second, &first)] {
        let (code, printed, said) = run("diff", &[first, second]);
        assert_eq!(code, Some(0), "{printed}{said}");
        let sum = workshop.path("sum");
        let line = format!("combine --force -o {}", sum.display());
        let (code, _, said) = run(&line, &[first, second]);
        assert_eq!(code, Some(0), "{said}");
        // The names of the first, and twice its deltas.
        let (found, own) = (deltas(&sum), deltas(first));
        assert_eq!(found.keys().collect::<Vec<_>>(), own.keys().collect::<Vec<_>>());
        let (code, printed, _) = run("compare --json", &[&sum, second]);
        assert_eq!(code, Some(0));
        let report: Value = serde_json::from_str(&printed).expect("JSON");
        let pair = &report["pairs"][0];
        for (measure, expected) in [("cosine", 1.0), ("norm_ratio", 2.0)] {
            let found = pair[measure].as_f64().expect("a number");
            assert!((found - expected).abs() < 1e-6, "{measure} {found}");
        }
    }
    // The names of the adapter that has all parts.
    let part = workshop.peft("part", 3, &old[..1], How::default());
    let both = workshop.path("both");
    let line = format!("combine --force -o {}", both.display());
    let (code, _, said) = run(&line, &[&part, &second]);
    assert_eq!(code, Some(0), "{said}");
    let names: Vec<String> = deltas(&both).into_keys().collect();
    let expected: Vec<String> = deltas(&second).into_keys().collect();
    assert_eq!(names, expected);
}

/// Wrappers of one adapter that mean something are left alone.
#[test]
fn two_stacks_of_one_adapter_stay_two() {
    let workshop = Workshop::new();
    let modules = [("model.layers.0.q_proj", 8, 6, 2), ("language_model.layers.0.q_proj", 8, 6, 2)];
    let adapter = workshop.peft("a", 1, &modules, How::default());
    let sum = workshop.path("sum");
    let line = format!("combine --force -w 0.5 0.5 -o {}", sum.display());
    let (code, _, said) = run(&line, &[&adapter, &adapter]);
    assert_eq!(code, Some(0), "{said}");
    let (own, found) = (deltas(&adapter), deltas(&sum));
    assert!(relative_error(&own, &found) < 1e-6);
    assert_eq!(found.len(), 2);
}

#[test]
fn adapters_of_two_models_are_told_apart() {
    let workshop = Workshop::new();
    let llama = [("model.layers.0.self_attn.q_proj", 8, 6, 2)];
    let bert = [("encoder.layer.0.attention.self.query", 8, 6, 2)];
    let mlp = [("model.layers.0.mlp.up_proj", 16, 6, 2)];
    let named = |name: &str, seed, modules: &[_], base: &str| {
        let made = crate::common::made::made(seed, modules, How::default());
        made.field("base_model_name_or_path", base).save(&workshop.path(name))
    };
    let first = named("llama", 1, &llama, "meta/llama");
    let second = named("bert", 2, &bert, "google/bert");
    let third = named("mlp", 3, &mlp, "/models/Llama/");
    let sum = workshop.path("sum");
    let line = format!("combine -o {}", sum.display());
    let (code, _, said) = run(&line, &[&first, &third, &second]);
    assert_eq!(code, Some(2), "{said}");
    let says = ["bert: it shares no module with", "meta/llama", "google/bert", "--allow-disjoint"];
    for says in says {
        assert!(said.contains(says), "{said}");
    }
    assert!(!sum.exists());
    // Other modules of one model are no other model.
    let (code, _, said) = run(&line, &[&first, &third]);
    assert_eq!(code, Some(0), "{said}");
    let (code, _, said) = run(&format!("{line} --allow-disjoint --force"), &[&first, &second]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(read(&sum.join("adapter_model.safetensors")).len(), 4);
    let (code, printed, _) = run("compare", &[&first, &second]);
    assert_eq!(code, Some(0));
    assert!(printed.contains("no module in common: different models or layouts"), "{printed}");
    assert!(!printed.contains("linear combination"), "{printed}");
}
