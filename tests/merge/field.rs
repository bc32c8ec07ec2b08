//! Cases after public reports, each with the outcome that is right: what a merge says, its exit code, and
//! the tensors it leaves.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::Path;

use serde_json::Value;

use crate::common::{fixture, lora_tool, read};

const CASES: [&str; 12] = [
    "anima_net_prefix",
    "audio_tower_prefix",
    "clip_saved_by_transformers5",
    "dead_target_parameters",
    "flux2_half_dotted_names",
    "gptoss_per_expert",
    "granitemoe_parallel_experts",
    "krea2_aitoolkit_magnitude",
    "peft_adapter_named_lora",
    "phi4mm_lora_inside_base",
    "seqcls_head_new_tensor",
    "tinker_split_in_proj",
];

fn texts(case: &Value, key: &str) -> Vec<String> {
    let items = case[key].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item.as_str().expect("a text").to_owned()).collect()
}

/// Every tensor of the expected files, held to the output's by the distance over its length.
fn compare(expected: &Path, got: &Path, tolerance: f64) {
    if expected.is_dir() {
        for entry in std::fs::read_dir(expected).expect("a directory") {
            let path = entry.expect("an entry").path();
            compare(&path, &got.join(path.file_name().expect("a name")), tolerance);
        }
        return;
    }
    let got = read(got);
    for (name, tensor) in read(expected) {
        let (expected, got) = (tensor.values(), got[&name].values());
        assert_eq!(expected.len(), got.len(), "{name}");
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        let off = square(&mut expected.iter().zip(&got).map(|(a, b)| a - b)).sqrt();
        let length = square(&mut expected.iter().copied()).sqrt();
        assert!(off <= tolerance * length + 1e-30, "{name} is off by {off} of {length}");
    }
}

#[test]
fn cases_after_public_reports_come_out_right() {
    for name in CASES {
        let at = fixture(&format!("field/{name}"));
        let case = std::fs::read(at.join("case.json")).expect("a case");
        let case: Value = serde_json::from_slice(&case).expect("JSON");
        let scratch = tempfile::tempdir().expect("a directory");
        let out = scratch.path().join(case["out_name"].as_str().unwrap_or("out"));
        let input = at.join("input");
        let path = |argument: &String| {
            let argument = argument.replace("{in}", &input.to_string_lossy());
            argument.replace("{out}", &out.to_string_lossy())
        };
        let arguments: Vec<String> = texts(&case, "argv").iter().map(path).collect();
        let done = lora_tool().args(&arguments).output().expect("it runs");
        let said =
            [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let said = said.concat();
        let code = case["exit"].as_i64().and_then(|code| i32::try_from(code).ok());
        assert_eq!(done.status.code(), code, "{name}: {said}");
        assert!(code == Some(0) || !out.exists(), "{name} left something");
        let matches = |pattern: &String| pattern.split('|').any(|pattern| said.contains(pattern));
        for pattern in texts(&case, "says") {
            assert!(matches(&pattern), "{name} does not say {pattern}: {said}");
        }
        for pattern in texts(&case, "says_not") {
            assert!(!matches(&pattern), "{name} says {pattern}: {said}");
        }
        if let Some(expected) = case["expect_tensors"].as_str() {
            let tolerance = case["rtol"].as_f64().unwrap_or(1e-5);
            compare(&at.join(expected), &out, tolerance);
        }
    }
}
