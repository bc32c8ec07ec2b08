//! What programs do with adapters (`fixtures/serving`): the verdict, the modules it is about, and the
//! command that mends it, run as it is printed.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::common::{Peft, fixture, lora_tool, read};

/// The report of `check`, and its exit code.
fn check(adapter: &Path, program: &str, against: Option<&Path>) -> (Value, i32) {
    let mut command = lora_tool();
    command.arg("check").arg(adapter).args(["--for", program, "--json"]);
    if let Some(base) = against {
        command.arg("--against").arg(base);
    }
    let done = command.output().expect("it runs");
    let report = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&done.stderr)));
    (report, done.status.code().expect("a code"))
}

/// Runs a line as a shell does, in a directory.
fn shell(line: &str, directory: &Path) -> Output {
    let tool = PathBuf::from(lora_tool().get_program());
    let folder = tool.parent().expect("the binary's folder").to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder).chain(std::env::split_paths(&path));
    Command::new("sh")
        .args(["-c", line])
        .current_dir(directory)
        .env("PATH", std::env::join_paths(folders).expect("paths"))
        .output()
        .expect("a shell")
}

fn merged(base: &Path, adapter: &Path, out: &Path) -> Vec<(String, Vec<f64>)> {
    let mut command = lora_tool();
    command.arg("merge").arg(base).arg(adapter).arg("-o").arg(out).assert().success();
    read(out).into_iter().map(|(name, tensor)| (name, tensor.values())).collect()
}

/// ‖a − b‖ / ‖a‖ over all tensors.
fn distance(a: &[(String, Vec<f64>)], b: &[(String, Vec<f64>)]) -> f64 {
    assert_eq!(a.len(), b.len());
    let (mut off, mut norm) = (0.0, 0.0);
    for ((name, own), (other_name, other)) in a.iter().zip(b) {
        assert_eq!(name, other_name);
        off += own.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        norm += own.iter().map(|a| a * a).sum::<f64>();
    }
    assert!(norm > 0.0, "the bases are zeros, so that merges are updates");
    (off / norm).sqrt()
}

/// The output that a fix line names.
fn output(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    paths.find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("OUT")))
}

#[test]
fn every_verdict_is_what_the_program_does_and_every_fix_mends_it() {
    let mut cases = 0;
    for entry in std::fs::read_dir(fixture("serving")).expect("cases") {
        let case = entry.expect("an entry").path();
        let name = case.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read(case.join("case.json")).expect("a case");
        let facts: Value = serde_json::from_slice(&text).expect("JSON");
        cases += 1;
        let program = facts["program"].as_str().expect("a program");
        let base = case.join("base");
        let adapter = [case.join("adapter"), case.join("adapter.safetensors")];
        let adapter = adapter.iter().find(|path| path.exists()).expect("an adapter");
        let (report, code) = check(adapter, program, Some(&base));
        let loads = facts["verdict"] == "loads";
        assert_eq!(code, i32::from(!loads), "{name}: {report}");
        if loads {
            assert_eq!(report["programs"][0]["verdict"], "loads", "{name}");
            continue;
        }
        let effects = report["findings"].as_array().expect("findings").iter();
        let effects: Vec<&str> =
            effects.map(|finding| finding["effect"].as_str().expect("an effect")).collect();
        let wanted: &[&str] = match facts["verdict"].as_str().expect("a verdict") {
            "refused" => &["refused"],
            "scaled wrongly" => &["scaled-wrongly", "lands-elsewhere"],
            _ => &["ignored"],
        };
        assert!(wanted.iter().any(|effect| effects.contains(effect)), "{name}: {effects:?}");
        let fix = report["programs"][0]["fix"].as_str().unwrap_or_else(|| panic!("{name}: no fix"));
        let scratch = tempfile::tempdir().expect("a directory");
        let done = shell(fix, scratch.path());
        let Some(out) = output(scratch.path()) else {
            // A model whose names are in no table: refused, and nothing is written.
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(said.contains("convention is unknown"), "{name}: {said}");
            assert_eq!(done.status.code(), Some(2), "{name}");
            continue;
        };
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        let (again, code) = check(&out, program, Some(&base));
        assert_eq!(code, 0, "{name}: {again}");
        let before = merged(&base, adapter, &scratch.path().join("before"));
        let after = merged(&base, &out, &scratch.path().join("after"));
        let off = distance(&before, &after);
        assert!(off < 1e-6, "{name}: {off}");
    }
    assert_eq!(cases, 13);
}

#[test]
fn older_versions_do_otherwise() {
    let case = |name: &str| fixture("serving").join(name);
    let text = case("01_vllm_text_only_names_on_qwen3vl");
    let (adapter, base) = (text.join("adapter"), text.join("base"));
    assert_eq!(check(&adapter, "vllm@0.33.0", Some(&base)).1, 0);
    let (report, code) = check(&adapter, "vllm@0.32.0", Some(&base));
    assert_eq!((code, &report["programs"][0]["verdict"]), (1, &json!("no effect")));
    let patterns = case("03_vllm_rank_and_alpha_pattern");
    let (adapter, base) = (patterns.join("adapter"), patterns.join("base"));
    let (report, code) = check(&adapter, "vllm@0.31", Some(&base));
    assert_eq!((code, &report["programs"][0]["verdict"]), (1, &json!("scaled wrongly")));
    // 2 instead of 4 and of 8.
    let places = report["findings"][0]["places"].as_array().expect("places");
    let factors: Vec<f64> = places.iter().filter_map(|place| place["factor"].as_f64()).collect();
    assert_eq!(factors, [0.5, 0.25]);
    let (report, code) = check(&adapter, "vllm@0.13", Some(&base));
    assert_eq!((code, &report["answer"]), (1, &json!("no")));
    let plain = case("07_sglang_q_proj_only").join("adapter");
    assert_eq!(check(&plain, "vllm@0.13", None).1, 2);
    assert_eq!(check(&plain, "vllm@99", None).1, 2);
}

#[test]
fn a_server_gets_its_flag_or_a_lower_rank() {
    let scratch = tempfile::tempdir().expect("a directory");
    let adapter = scratch.path().join("r24");
    let values = |count: usize| -> Vec<f32> { (0..count).map(|n| (n % 7) as f32 - 3.0).collect() };
    let module = "model.layers.0.self_attn.q_proj";
    Peft::new(24, 24.0).linear(module, 24, &values(24 * 40), &values(24 * 40)).save(&adapter);
    let (report, code) = check(&adapter, "vllm", None);
    assert_eq!((code, &report["programs"][0]["needs"]), (0, &json!(["--max-lora-rank 32"])));
    let asked = |most: &str| {
        let mut command = lora_tool();
        command.arg("check").arg(&adapter).args(["--for", "vllm", "--json", "--max-rank", most]);
        let done = command.output().expect("it runs");
        let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        (report, done.status.code())
    };
    assert_eq!(asked("24").1, Some(0));
    let (report, code) = asked("16");
    assert_eq!(code, Some(1));
    let fix = report["programs"][0]["fix"].as_str().expect("a fix");
    assert!(fix.starts_with("lora-tool resize ") && fix.ends_with(" --rank 16 -o OUT"), "{fix}");
    assert!(shell(fix, scratch.path()).status.success());
    assert_eq!(check(&scratch.path().join("OUT"), "vllm", None).1, 0);
    let large = scratch.path().join("r600");
    Peft::new(600, 600.0).linear(module, 600, &values(600 * 2), &values(600 * 2)).save(&large);
    let (report, code) = check(&large, "vllm", None);
    assert_eq!(code, 1);
    assert!(report.to_string().contains("--rank 512") || report.to_string().contains("--rank 2 "));
}

#[test]
fn dora_for_a_server_is_merged_and_extracted() {
    let scratch = tempfile::tempdir().expect("a directory");
    let case = fixture("golden/merge_dora/input");
    let (adapter, base) = (case.join("adapter"), base_of(&case));
    let (report, code) = check(&adapter, "vllm", Some(&base));
    assert_eq!(code, 1, "{report}");
    let fix = report["programs"][0]["fix"].as_str().expect("a fix");
    assert!(
        fix.contains(" merge ") && fix.contains(" extract ") && fix.contains("--rank lossless"),
        "{fix}"
    );
    let done = shell(fix, scratch.path());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let (report, _) = check(&scratch.path().join("OUT"), "vllm", Some(&base));
    assert!(!report.to_string().contains("DoRA"), "{report}");
    // Converting says the commands too, and with a loss no number that hides it.
    let mut command = lora_tool();
    command
        .arg("convert")
        .arg(&adapter)
        .args(["--for", "vllm", "-o"])
        .arg(scratch.path().join("x"));
    let said = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("lora-tool extract BASE MERGED --rank auto"), "{said}");
    let mut command = lora_tool();
    command.arg("convert").arg(&adapter).args(["--for", "vllm", "--allow-loss", "--json", "-o"]);
    let done = command.arg(scratch.path().join("y")).output().expect("it runs");
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(report["max_relative_error"], Value::Null);
    assert!(!report["lost"].as_array().expect("a list").is_empty());
}

fn base_of(case: &Path) -> PathBuf {
    let found = [case.join("base"), case.join("base.safetensors")];
    found.into_iter().find(|path| path.exists()).expect("a base")
}

#[test]
fn one_expert_of_many_is_completed_with_zeros() {
    let scratch = tempfile::tempdir().expect("a directory");
    let case = fixture("serving/04_vllm_peft_stacks_on_qwen3_moe");
    let base = case.join("base");
    let adapter = scratch.path().join("one");
    let values = |count: usize| -> Vec<f32> { (0..count).map(|n| (n % 5) as f32 - 2.0).collect() };
    let module = "model.layers.0.mlp.experts.2.gate_proj";
    Peft::new(4, 8.0)
        .field("target_modules", json!(["gate_proj"]))
        .linear(module, 4, &values(4 * 32), &values(16 * 4))
        .save(&adapter);
    let (report, code) = check(&adapter, "vllm", Some(&base));
    assert_eq!(code, 1, "{report}");
    let fix = report["programs"][0]["fix"].as_str().expect("a fix");
    assert!(shell(fix, scratch.path()).status.success(), "{fix}");
    let out = scratch.path().join("OUT");
    assert_eq!(check(&out, "vllm", Some(&base)).1, 0);
    assert_eq!(read(&out.join("adapter_model.safetensors")).len(), 4 * 3 * 2);
    let before = merged(&base, &adapter, &scratch.path().join("before"));
    let after = merged(&base, &out, &scratch.path().join("after"));
    assert!(distance(&before, &after) < 1e-6);
}

#[test]
fn ollama_gets_a_modelfile() {
    let scratch = tempfile::tempdir().expect("a directory");
    let case = fixture("serving/13_ollama_qwen2_safetensors");
    let out = scratch.path().join("out");
    let mut command = lora_tool();
    command.arg("convert").arg(case.join("adapter")).args(["--for", "ollama", "--reference"]);
    command.arg(case.join("base")).arg("-o").arg(&out).assert().success();
    let text = std::fs::read_to_string(out.join("Modelfile")).expect("a Modelfile");
    let base = case.join("base");
    assert_eq!(text, format!("FROM {}\nADAPTER ./adapter.gguf\n", base.display()));
    assert!(std::fs::read(out.join("adapter.gguf")).expect("a file").starts_with(b"GGUF"));
    let mut command = lora_tool();
    command.arg("convert").arg(case.join("adapter")).args(["--for", "ollama", "-o"]);
    command.arg(scratch.path().join("other")).assert().code(2);
}
