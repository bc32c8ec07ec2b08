//! Every verb that writes adapters writes every convention that `convert` writes, and the same.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::path::PathBuf;

use crate::common::bench::Bench;
use crate::common::deltas::Deltas;
use crate::common::{Peft, Random, Tensors, read};
use lora_tool::adapter::{Adapter, OpenOptions};
use serde_json::json;

/// A piece of FLUX.1 of width 8 in diffusers' names.
fn flux(bench: &Bench, seed: u64, name: &str) -> PathBuf {
    let mut random = Random::new(seed);
    let mut file = Tensors::new();
    for (module, outputs, inputs) in [
        ("transformer_blocks.0.attn.to_q", 8, 8),
        ("transformer_blocks.0.attn.to_v", 8, 8),
        ("single_transformer_blocks.2.attn.to_q", 8, 8),
        ("single_transformer_blocks.2.proj_mlp", 32, 8),
        ("norm_out.linear", 16, 8),
    ] {
        let key = |part: &str| format!("transformer.{module}.{part}.weight");
        file = file.f32(&key("lora_A"), &[2, inputs], &random.values(2 * inputs, 1.0)).f32(
            &key("lora_B"),
            &[outputs, 2],
            &random.values(2 * outputs, 1.0),
        );
    }
    file.save(&bench.path(name))
}

#[test]
fn image_adapters_go_to_every_convention() {
    let bench = Bench::new();
    flux(&bench, 1, "a.safetensors");
    flux(&bench, 2, "b.safetensors");
    bench.made("combine a.safetensors b.safetensors -w 0.5,2 -o ab.safetensors");
    bench.made("resize a.safetensors --rank 1 -o a1.safetensors");
    let adapter =
        Adapter::open(&bench.path("ab.safetensors"), &OpenOptions::default()).expect("opens");
    assert_eq!(adapter.convention.name, "diffusers");
    for (to, ending) in [
        ("kohya", ".safetensors"),
        ("comfyui", ".safetensors"),
        ("diffusers", ".safetensors"),
        ("peft", ""),
    ] {
        for (made, line) in [
            ("ab", "combine a.safetensors b.safetensors -w 0.5,2"),
            ("a1", "resize a.safetensors --rank 1"),
        ] {
            let direct = bench.made(&format!("{line} --to {to} -f -o direct{ending}"));
            let later =
                bench.made(&format!("convert {made}.safetensors --to {to} -f -o later{ending}"));
            Deltas::of(&direct).close_to(&Deltas::of(&later), 1e-6);
        }
    }
    // Queries and values have an A each, and keys none.
    let kohya = bench.made("resize a.safetensors --rank lossless --to kohya -o k.safetensors");
    let up = &read(&kohya)["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"];
    assert_eq!(up.shape, [24, 4]);
}

#[test]
fn one_model_in_two_layouts_combines() {
    let bench = Bench::new();
    let a = flux(&bench, 1, "a.safetensors");
    flux(&bench, 2, "b.safetensors");
    bench.made("convert b.safetensors --to kohya -o b-kohya.safetensors");
    bench.made("convert b.safetensors --to peft -o b-peft");
    let expected = bench.made("combine a.safetensors b.safetensors -w 1,-0.5 -o ab.safetensors");
    let expected = Deltas::of(&expected);
    for other in ["b-kohya.safetensors", "b-peft"] {
        let line =
            format!("combine a.safetensors {other} -w 1,-0.5 --to diffusers -f -o m.safetensors");
        Deltas::of(&bench.made(&line)).close_to(&expected, 1e-6);
        let line =
            format!("combine {other} a.safetensors -w -0.5,1 --to kohya -f -o n.safetensors");
        let kohya = bench.made(&line);
        assert!(Deltas::of(&kohya).0.keys().all(|name| name.starts_with("lora_unet_")));
        let back = bench.made("convert n.safetensors --to diffusers -f -o o.safetensors");
        // Of a fused projection whose directions are mixed, parts that were not there are all but zero.
        let mut back = Deltas::of(&back);
        back.0.retain(|_, delta| delta.squared_norm() > 1e-20);
        back.close_to(&expected, 1e-6);
    }
    assert_ne!(Deltas::of(&a).0.len(), 0);
}

#[test]
fn language_adapters_go_to_mlx_and_gguf() {
    let bench = Bench::new();
    let config = json!({
        "model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2,
    });
    std::fs::create_dir(bench.path("base")).expect("made");
    std::fs::write(bench.path("base/config.json"), config.to_string()).expect("written");
    let mut random = Random::new(3);
    let mut peft = Peft::new(4, 8.0);
    for (module, outputs) in [("q_proj", 16), ("k_proj", 8)] {
        let name = format!("model.layers.0.self_attn.{module}");
        let (down, up) = (random.values(4 * 8, 1.0), random.values(4 * outputs, 1.0));
        peft = peft.linear(&name, 4, &down, &up);
    }
    peft.save(&bench.path("peft"));
    bench.made("resize peft --rank 2 -o r2");
    let expected = Deltas::of(&bench.path("r2"));
    let mlx = bench.made("resize peft --rank 2 --to mlx -o mlx");
    Deltas::of(&mlx).close_to(&expected, 1e-6);
    bench.made("resize peft --rank 2 --to gguf --reference base -o r2.gguf");
    let back = bench.made("convert r2.gguf --to peft --reference base -o back");
    Deltas::of(&back).close_to(&expected, 1e-6);
    // A merge finds the heads beside the base, and undoes llama.cpp's order of rows.
    let weights = [("q_proj", 16), ("k_proj", 8)].into_iter().fold(Tensors::new(), |all, one| {
        let name = format!("model.layers.0.self_attn.{}.weight", one.0);
        all.f32(&name, &[one.1, 8], &random.values(one.1 * 8, 1.0))
    });
    weights.save(&bench.path("base/model.safetensors"));
    let merged = read(&bench.made("merge base r2.gguf -o merged").join("model.safetensors"));
    for (name, own) in read(&bench.made("merge base r2 -o other").join("model.safetensors")) {
        assert_eq!(merged[&name].values(), own.values(), "{name}");
    }
    let (code, said) = bench.line("resize peft --rank 2 --to gguf -o none.gguf");
    assert!(code == Some(2) && said.contains("--reference BASE"), "{said}");
    assert!(!bench.path("none.gguf").exists());
}

#[test]
fn a_budget_of_bytes_is_the_inputs_conventions() {
    let bench = Bench::new();
    flux(&bench, 1, "a.safetensors");
    let kept = bench.made("resize a.safetensors --rank size:4KB -o s.safetensors");
    let bytes = std::fs::metadata(&kept).expect("a file").len();
    assert!(bytes <= 4000, "{bytes}");
    let (code, said) =
        bench.line("resize a.safetensors --rank size:4KB --to kohya -o k.safetensors");
    assert!(code == Some(2) && said.contains("budget of bytes"), "{said}");
}

#[test]
fn differences_of_checkpoints_go_to_diffusers() {
    let bench = Bench::new();
    let mut random = Random::new(5);
    let (mut base, mut tuned) = (Tensors::new(), Tensors::new());
    for (name, rows, columns) in [
        ("double_blocks.0.img_attn.qkv", 24, 8),
        ("single_blocks.0.linear1", 56, 8),
        ("final_layer.adaLN_modulation.1", 16, 8),
    ] {
        let (values, left, right) = (
            random.values(rows * columns, 1.0),
            random.values(rows, 1.0),
            random.values(columns, 1.0),
        );
        let name = format!("model.diffusion_model.{name}.weight");
        let changed: Vec<f32> = values
            .iter()
            .enumerate()
            .map(|(at, value)| value + left[at / columns] * right[at % columns])
            .collect();
        base = base.f32(&name, &[rows, columns], &values);
        tuned = tuned.f32(&name, &[rows, columns], &changed);
    }
    base.save(&bench.path("base.safetensors"));
    tuned.save(&bench.path("tuned.safetensors"));
    let line = "extract base.safetensors tuned.safetensors --rank 1";
    bench.made(&format!("{line} -o k.safetensors"));
    let later = bench.made("convert k.safetensors --to diffusers -o later.safetensors");
    let direct = bench.made(&format!("{line} --to diffusers -o d.safetensors"));
    let direct = Deltas::of(&direct);
    direct.close_to(&Deltas::of(&later), 1e-6);
    assert!(direct.0.contains_key("transformer.single_transformer_blocks.0.proj_mlp"));
    bench.made("merge base.safetensors d.safetensors -o merged.safetensors");
    let (merged, tuned) =
        (read(&bench.path("merged.safetensors")), read(&bench.path("tuned.safetensors")));
    for (name, tensor) in &tuned {
        for (a, b) in merged[name].values().iter().zip(tensor.values()) {
            assert!((a - b).abs() < 1e-5, "{name}");
        }
    }
}

/// What differs and has no place in the convention is refused before anything is computed; what is equal
/// needs none.
#[test]
fn what_the_convention_cannot_hold_is_refused_before_an_extraction() {
    let bench = Bench::new();
    let model = |changed: &[&str]| {
        let mut file = Tensors::new();
        for name in ["model.layers.0.self_attn.q_proj", "visual.blocks.0.q"] {
            let value = if changed.contains(&name) { 2.0 } else { 1.0 };
            let values: Vec<f32> = (0..16).map(|at| value * at as f32).collect();
            file = file.f32(&format!("{name}.weight"), &[4, 4], &values);
        }
        file
    };
    let config = json!({"model_type": "llama", "num_attention_heads": 2});
    model(&[]).save(&bench.path("base/model.safetensors"));
    std::fs::write(bench.path("base/config.json"), config.to_string()).expect("written");
    let (language, vision) = ("model.layers.0.self_attn.q_proj", "visual.blocks.0.q");
    model(&[language, vision]).save(&bench.path("both.safetensors"));
    model(&[vision]).save(&bench.path("vision.safetensors"));
    model(&[language]).save(&bench.path("language.safetensors"));
    for tuned in ["both", "vision"] {
        let line = format!("extract base {tuned}.safetensors --rank 1 --to gguf -o {tuned}.gguf");
        let (code, said) = bench.line(&line.replace(" -o", " --dry-run -o"));
        assert_eq!(
            (code, bench.path(&format!("{tuned}.gguf")).exists()),
            (Some(2), false),
            "{said}"
        );
        assert!(said.contains("visual.blocks.0.q"), "{said}");
        assert_eq!(bench.line(&line).1, said);
    }
    let line = "extract base language.safetensors --rank 1 --to gguf";
    bench.made(&format!("{line} -o language.gguf"));
    let line = "extract base both.safetensors --exclude visual --rank 1 --to gguf";
    bench.made(&format!("{line} -o excluded.gguf"));
}

/// Stored differences are added up; what does more than add refuses them.
#[test]
fn stored_differences_are_summed() {
    let bench = Bench::new();
    let lora = |file: Tensors| {
        file.f32("lora_unet_a.lora_down.weight", &[1, 2], &[1.0, 2.0])
            .f32("lora_unet_a.lora_up.weight", &[2, 1], &[1.0, 1.0])
            .f32("lora_unet_a.alpha", &[], &[0.5])
            .f32("lora_unet_a.diff_b", &[2], &[1.0, 3.0])
    };
    lora(Tensors::new())
        .f32("lora_unet_norm.diff", &[3], &[1.0, 2.0, 4.0])
        .f32("lora_unet_norm.diff_b", &[3], &[8.0, 0.0, 0.0])
        .save(&bench.path("a.safetensors"));
    lora(Tensors::new())
        .f32("lora_unet_norm.diff", &[3], &[0.0, 1.0, 0.0])
        .f32("lora_unet_bias.diff_b", &[2], &[5.0, 6.0])
        .save(&bench.path("b.safetensors"));
    let sum = read(&bench.made("combine a.safetensors b.safetensors -w 2,-1 -o c.safetensors"));
    assert_eq!(sum["lora_unet_norm.diff"].values(), [2.0, 3.0, 8.0]);
    assert_eq!(sum["lora_unet_norm.diff_b"].values(), [16.0, 0.0, 0.0]);
    assert_eq!(sum["lora_unet_bias.diff_b"].values(), [-5.0, -6.0]);
    // As ComfyUI reads it: the scale is in it.
    assert_eq!(sum["lora_unet_a.diff_b"].values(), [1.0, 3.0]);
    assert_eq!(sum["lora_unet_a.alpha"].values(), [1.0]);
    assert!(!sum.contains_key("lora_unet_norm.alpha"));
    let kept = read(&bench.made("resize a.safetensors --rank 1 -o r.safetensors"));
    assert_eq!(kept["lora_unet_norm.diff"].values(), [1.0, 2.0, 4.0]);
    let (code, said) =
        bench.line("combine a.safetensors b.safetensors --method ties -o none.safetensors");
    assert!(code == Some(2) && said.contains("lora_unet_norm"), "{said}");
    assert!(said.contains("as large as the weight"), "{said}");
}
