//! What programs would refuse or get wrong.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{fixture, lora_tool};
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
