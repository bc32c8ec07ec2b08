//! What programs would refuse or get wrong.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use crate::common::{Tensors, fixture, lora_tool};
use serde_json::Value;

fn check(adapter: &Path, program: &str, code: i32) -> Value {
    let mut command = lora_tool();
    let done = command.arg("check").arg(adapter).args(["--for", program, "--json"]).assert();
    serde_json::from_slice(&done.code(code).get_output().stdout).expect("JSON")
}

#[test]
fn every_program_has_its_say() {
    let patterns = fixture("golden/merge_rank_alpha_pattern/input/adapter");
    let report = check(&patterns, "vllm", 1);
    assert_eq!(report["findings"][0]["severity"], "changes");
    let fix = report["findings"][0]["fix"].as_str().expect("a fix");
    assert!(fix.ends_with("--for vllm -o OUT"), "{fix}");
    assert_eq!(check(&patterns, "peft", 0)["findings"], serde_json::json!([]));
    for (program, says) in
        [("llama.cpp", "gguf"), ("comfyui", "peft"), ("diffusers", "peft"), ("mlx", "peft")]
    {
        let report = check(&patterns, program, 1);
        assert_eq!(report["findings"][0]["severity"], "breaks", "{says}");
    }
    let dora = fixture("golden/merge_dora/input/adapter");
    let said = check(&dora, "vllm", 1).to_string();
    assert!(said.contains("refuses DoRA"), "{said}");
    let kohya = fixture("golden/resize_kohya_fixed/input/lora.safetensors");
    assert_eq!(check(&kohya, "comfyui", 0)["ok"], true);
    let mut command = lora_tool();
    command.arg("check").arg(&kohya).args(["--for", "nobody"]).assert().code(2);
}

#[test]
fn what_is_converted_for_a_program_passes_its_check() {
    let scratch = tempfile::tempdir().expect("a directory");
    let adapter = fixture("golden/merge_rank_alpha_pattern/input/adapter");
    for program in ["vllm", "mlx"] {
        let out = scratch.path().join(program);
        let mut command = lora_tool();
        command.arg("convert").arg(&adapter).args(["--for", program, "-o"]).arg(&out);
        command.assert().success();
        assert_eq!(check(&out, program, 0)["ok"], true, "{program}");
    }
}

/// A file of factors of rank 1 for a layer of 8 outputs and 4 inputs, and what else it has.
fn factors(module: &str, (down, up): (&str, &str), also: &[(&str, &[usize])]) -> Tensors {
    let mut tensors = Tensors::new().f32(&format!("{module}{down}"), &[1, 4], &[0.5; 4]).f32(
        &format!("{module}{up}"),
        &[8, 1],
        &[0.25; 8],
    );
    for (name, shape) in also {
        let count = shape.iter().product();
        tensors = tensors.f32(&format!("{module}{name}"), shape, &vec![1.0; count]);
    }
    tensors
}

#[test]
fn comfyui_passes_over_names_of_diffusers() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("lora.safetensors");
    let (new, old) =
        ((".lora_A.weight", ".lora_B.weight"), ("_lora.down.weight", "_lora.up.weight"));
    let block = "unet.mid_block.attentions.0.transformer_blocks.0";
    for (module, ends, taken) in [
        (format!("{block}.attn1.to_q"), new, false),
        (format!("{block}.attn1.to_out.0"), new, false),
        (format!("{block}.attn1.processor.to_q"), old, true),
        (format!("{block}.ff.net.2"), new, true),
        ("transformer.single_transformer_blocks.0.attn.to_q".into(), new, true),
        // HunyuanVideo has two more single blocks than Flux.
        ("transformer.single_transformer_blocks.39.attn.to_q".into(), new, false),
        ("transformer.blocks.0.attn1.to_q".into(), new, false),
        ("transformer.layers.0.attn.to_q".into(), new, false),
        ("transformer.layers.0.attention.to_q".into(), new, true),
        ("transformer_2.blocks.0.attn1.to_q".into(), new, false),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj".into(), new, true),
        ("text_encoder_2.encoder.block.0.layer.0.SelfAttention.q".into(), new, false),
    ] {
        factors(&module, ends, &[]).save(&path);
        let report = check(&path, "comfyui", i32::from(!taken));
        let says = report["findings"][0]["says"].as_str().unwrap_or_default();
        assert_eq!(says.contains("names of diffusers"), !taken, "{module}: {report}");
    }
}

#[test]
fn comfyui_computes_another_dora_and_oft() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("lora.safetensors");
    let module = "lora_unet_double_blocks_0_img_mlp_0";
    let ends = (".lora_down.weight", ".lora_up.weight");
    for (lengths, right) in [(&[8, 1], false), (&[1, 4], true)] {
        factors(module, ends, &[(".dora_scale", lengths)]).save(&path);
        let report = check(&path, "comfyui", i32::from(!right));
        assert_eq!(report.to_string().contains("magnitudes of outputs"), !right, "{report}");
        // Converting again would change nothing.
        assert_eq!(report["findings"][0].get("fix"), None);
    }
    for (blocks, right) in [(&[2, 4, 4][..], false), (&[1, 2, 4, 4][..], true)] {
        let oft = Tensors::new()
            .f32(&format!("{module}.oft_blocks"), blocks, &[0.0; 32])
            .f32(&format!("{module}.alpha"), &[], &[0.0])
            .f32(&format!("{module}.rescale"), &[8, 1], &[2.0; 8]);
        oft.save(&path);
        let report = check(&path, "comfyui", i32::from(!right));
        assert_eq!(report.to_string().contains("rescale"), !right, "{report}");
    }
}
