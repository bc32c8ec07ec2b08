//! Files of other trainers, against what diffusers' own functions make of them (`fixtures/diffusers`), and
//! Black Forest Labs' control LoRAs.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use crate::common::bench::Bench;
use crate::common::deltas::Deltas;
use crate::common::{Random, Tensors, fixture, read};

#[test]
fn diffusers_own_functions_make_the_same_of_it() {
    for (case, back) in [("flux", "kohya"), ("sdxl", "kohya"), ("xlabs", "")] {
        let bench = Bench::new();
        let original = fixture(&format!("diffusers/{case}/adapter.safetensors"));
        let theirs = fixture(&format!("diffusers/{case}/diffusers.safetensors"));
        let ours = bench.convert(&original, "--to diffusers", "d.safetensors");
        Deltas::of(&ours).close_to(&Deltas::of(&theirs), 1e-6);
        if back.is_empty() {
            continue;
        }
        // And theirs, whose scales are in the factors, back to what they were made of.
        for from in [&ours, &theirs] {
            let name = format!("{}.safetensors", from.starts_with(fixture("")));
            let again = bench.convert(from, &format!("--to {back}"), &name);
            Deltas::of(&again).close_to(&Deltas::of(&original), 1e-6);
        }
        let again = bench.path("false.safetensors");
        let (again, original) = (read(&again), read(&original));
        assert_eq!(again.keys().collect::<Vec<_>>(), original.keys().collect::<Vec<_>>());
        for (name, tensor) in &original {
            assert_eq!(again[name], *tensor, "{case}: {name}");
        }
    }
}

#[test]
fn xlabs_files_land_and_convert() {
    let bench = Bench::new();
    let original = fixture("diffusers/xlabs/adapter.safetensors");
    let kohya = bench.convert(&original, "--to kohya", "k.safetensors");
    let tensors = read(&kohya);
    let up = |name: &str| tensors[&format!("{name}.lora_up.weight")].shape.clone();
    assert_eq!(up("lora_unet_double_blocks_11_txt_attn_qkv"), [24, 2]);
    // The rows of the feed-forward layer beside it are zero.
    assert_eq!(up("lora_unet_single_blocks_1_linear1"), [56, 2]);
    let split = bench.convert(&original, "--to diffusers", "d.safetensors");
    let again = bench.convert(&kohya, "--to diffusers", "d2.safetensors");
    // Rows that were filled in with zeros make no module again.
    let (one, other) = (read(&split), read(&again));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    assert!(one.iter().all(|(name, tensor)| other[name] == *tensor));
    // Both land on the same rows of the published checkpoint.
    let base = published(&bench);
    let mut merged = Vec::new();
    for (number, adapter) in [&original, &kohya, &bench.path("d.safetensors")].iter().enumerate() {
        let name = format!("merged{number}.safetensors");
        let (code, said) = bench.run("merge", &[&base, adapter], "", &name);
        assert_eq!(code, Some(0), "{said}");
        merged.push(read(&bench.path(&name)));
    }
    assert!(merged.windows(2).all(|two| two[0] == two[1]));
    assert_ne!(merged[0], read(&base));
}

/// As much of FLUX.1's checkpoint as the files here are for, width 8.
fn published(bench: &Bench) -> PathBuf {
    let mut random = Random::new(1);
    let mut file = Tensors::new();
    for (name, rows, columns) in [
        ("double_blocks.0.img_attn.qkv", 24, 8),
        ("double_blocks.0.img_attn.proj", 8, 8),
        ("double_blocks.11.txt_attn.qkv", 24, 8),
        ("double_blocks.11.txt_attn.proj", 8, 8),
        ("single_blocks.1.linear1", 56, 8),
        ("single_blocks.1.linear2", 8, 40),
        ("final_layer.adaLN_modulation.1", 16, 8),
    ] {
        file = file
            .f32(&format!("{name}.weight"), &[rows, columns], &random.values(rows * columns, 1.0))
            .f32(&format!("{name}.bias"), &[rows], &random.values(rows, 1.0));
    }
    file = file.f32("double_blocks.0.img_attn.norm.query_norm.scale", &[4], &[1.0; 4]).f32(
        "single_blocks.1.norm.key_norm.scale",
        &[4],
        &[1.0; 4],
    );
    file.save(&bench.path("flux.safetensors"))
}

/// A control LoRA with these modules: name, outputs, inputs.
fn control(path: &Path, modules: &[(&str, usize, usize)]) -> PathBuf {
    let mut random = Random::new(2);
    let mut file = Tensors::new();
    for &(name, outputs, inputs) in modules {
        file = file
            .f32(&format!("{name}.lora_A.weight"), &[2, inputs], &random.values(2 * inputs, 0.5))
            .f32(&format!("{name}.lora_B.weight"), &[outputs, 2], &random.values(2 * outputs, 0.5))
            .f32(&format!("{name}.lora_B.bias"), &[outputs], &random.values(outputs, 0.5));
    }
    file = file
        .f32("double_blocks.0.img_attn.norm.query_norm.scale", &[4], &[0.5, 1.5, 2.5, 3.5])
        .f32("single_blocks.1.norm.key_norm.scale", &[4], &[4.0, 3.0, 2.0, 1.0]);
    file.save(path)
}

const CONTROL: [(&str, usize, usize); 4] = [
    ("double_blocks.0.img_attn.qkv", 24, 8),
    ("double_blocks.11.txt_attn.proj", 8, 8),
    ("single_blocks.1.linear1", 56, 8),
    ("final_layer.adaLN_modulation.1", 16, 8),
];

#[test]
fn control_loras_merge_and_convert() {
    let bench = Bench::new();
    let original = control(&bench.path("control.safetensors"), &CONTROL);
    let base = published(&bench);
    let diffusers = bench.convert(&original, "--to diffusers", "d.safetensors");
    let tensors = read(&diffusers);
    let norm = &tensors["transformer.transformer_blocks.0.attn.norm_q.weight"];
    assert_eq!(norm.values(), [0.5, 1.5, 2.5, 3.5]);
    // Rows of the bias go with the rows of B; halves are swapped in both.
    let before = read(&original);
    let bias = before["double_blocks.0.img_attn.qkv.lora_B.bias"].values();
    let k = &tensors["transformer.transformer_blocks.0.attn.to_k.lora_B.bias"];
    assert_eq!(k.values(), bias[8..16]);
    let bias = before["final_layer.adaLN_modulation.1.lora_B.bias"].values();
    let swapped = &tensors["transformer.norm_out.linear.lora_B.bias"];
    assert_eq!(swapped.values(), [&bias[8..], &bias[..8]].concat());
    let (code, said) = bench.run("merge", &[&base, &original], "", "m.safetensors");
    assert_eq!(code, Some(0), "{said}");
    let merged = read(&bench.path("m.safetensors"));
    let scale = &merged["double_blocks.0.img_attn.norm.query_norm.scale"];
    assert_eq!(scale.values(), [0.5, 1.5, 2.5, 3.5]);
    let own = &read(&base)["single_blocks.1.linear1.bias"].values();
    let added = before["single_blocks.1.linear1.lora_B.bias"].values();
    let expected: Vec<f64> =
        own.iter().zip(&added).map(|(a, b)| f64::from((a + b) as f32)).collect();
    assert_eq!(merged["single_blocks.1.linear1.bias"].values(), expected);
}

#[test]
fn what_kohya_has_no_name_for_is_listed() {
    let bench = Bench::new();
    let original = control(&bench.path("control.safetensors"), &CONTROL);
    let said = bench.refuse(&original, "--to kohya", "k.safetensors");
    for name in ["double_blocks.0.img_attn.norm.query_norm.scale", "single_blocks.1.norm.key_norm"]
    {
        assert!(said.contains(name), "{said}");
    }
    bench.convert(&original, "--to kohya --allow-loss", "k.safetensors");
    let qkv = &read(&bench.path("k.safetensors"))["lora_unet_double_blocks_0_img_attn_qkv.diff_b"];
    let own = &read(&original)["double_blocks.0.img_attn.qkv.lora_B.bias"];
    assert_eq!(qkv.values(), own.values());
}

/// The control image goes through inputs that the base does not have.
#[test]
fn a_wider_input_layer_converts_and_does_not_merge() {
    let bench = Bench::new();
    let mut modules = CONTROL.to_vec();
    modules.push(("img_in", 8, 16));
    let original = control(&bench.path("control.safetensors"), &modules);
    let diffusers = bench.convert(&original, "--to diffusers", "d.safetensors");
    assert_eq!(read(&diffusers)["transformer.x_embedder.lora_A.weight"].shape, [2, 16]);
    let base = published(&bench);
    let mut file = Tensors::new().f32("img_in.weight", &[8, 8], &[0.0; 64]);
    for (name, tensor) in read(&base) {
        let values: Vec<f32> = tensor.values().iter().map(|value| *value as f32).collect();
        file = file.f32(&name, &tensor.shape, &values);
    }
    let base = file.save(&bench.path("wide.safetensors"));
    let (code, said) = bench.run("merge", &[&base, &original], "", "m.safetensors");
    assert!(code == Some(2) && said.contains("img_in"), "{said}");
}
