//! Every verb on an adapter of any family: it works on all of the adapter's modules, or says in words why it cannot, and
//! leaves nothing then.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::Path;

use serde_json::Value;

use crate::common::{fixture, lora_tool};

/// What a command did: its exit code, what it printed and what it said.
struct Done {
    code: Option<i32>,
    printed: String,
    said: String,
}

fn run(label: &str, line: &str, paths: &[&Path], output: Option<&Path>) -> Done {
    let mut words = line.split(' ');
    let mut command = lora_tool();
    command.arg(words.next().expect("a verb")).args(paths).args(words);
    if let Some(output) = output {
        command.args(["--force", "-o"]).arg(output);
    }
    let done = command.output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let done =
        Done { code: done.status.code(), printed: text(done.stdout), said: text(done.stderr) };
    assert!(matches!(done.code, Some(0..=2)), "{label}: {line}: {}", done.said);
    assert!(!done.said.contains("panicked"), "{label}: {line}: {}", done.said);
    if done.code == Some(2) {
        let first = done.said.lines().find(|line| line.starts_with("error: "));
        let first = first.unwrap_or_default();
        assert!(first.split_whitespace().count() > 4, "{label}: {line}: {}", done.said);
        let left = output.is_some_and(Path::exists);
        assert!(!left, "{label}: {line} left something: {}", done.said);
    }
    done
}

/// Modules and replacements of an adapter, as `inspect` counts them.
fn count(label: &str, adapter: &Path) -> usize {
    let done = run(label, "inspect --json", &[adapter], None);
    assert_eq!(done.code, Some(0), "{label}: {}", done.said);
    let report: Value = serde_json::from_str(&done.printed).expect("JSON");
    let item = &report["items"][0];
    let length = |field: &str| item[field].as_array().map_or(0, Vec::len);
    length("modules") + length("replacements")
}

/// Runs every verb. An adapter whose update has factors without a base goes through all of them; of any other, each
/// verb that needs factors refuses, and merging and converting with the base at hand work.
pub(crate) fn check(label: &str, base: &Path, adapter: &Path) {
    let scratch = tempfile::tempdir().expect("a directory");
    let directory = adapter.is_dir();
    let out = |name: &str| match directory {
        true => scratch.path().join(name),
        false => scratch.path().join(format!("{name}.safetensors")),
    };
    let modules = count(label, adapter);
    assert!(modules > 0, "{label}: nothing in it");
    let merged = out("merged");
    let merge = run(label, "merge", &[base, adapter], Some(&merged));
    assert_eq!(merge.code, Some(0), "{label}: {}", merge.said);
    let lora = out("lora");
    let line = format!("convert --as lora --rank 4 --reference {}", base.display());
    let with_base = run(label, &line, &[adapter], Some(&lora));
    assert_eq!(with_base.code, Some(0), "{label}: {}", with_base.said);
    assert_eq!(count(label, &lora), modules, "{label}: as LoRA");
    let alone = out("alone");
    let alone = run(label, "convert --as lora --rank 4", &[adapter], Some(&alone));
    for (line, inputs) in [
        ("combine -w 0.5 0.5", vec![adapter, adapter]),
        ("resize --rank 2", vec![adapter]),
        ("combine --method ties -w 1 1 --density 0.5", vec![adapter, adapter]),
    ] {
        let made = out("made");
        let done = run(label, line, &inputs, Some(&made));
        if done.code == Some(0) {
            assert_eq!(count(label, &made), modules, "{label}: {line} dropped something");
            assert_eq!(alone.code, Some(0), "{label}: {line} works, --as lora without a base not");
        }
    }
    for line in ["diff", "compare", "check"] {
        let inputs = if line == "check" { vec![adapter] } else { vec![adapter, adapter] };
        let done = run(label, line, &inputs, None);
        let same = line == "diff" && done.code == Some(1);
        assert!(!same, "{label}: it differs from itself: {}", done.printed);
    }
}

/// PEFT's own adapters, of each type that it has recorded merges of.
#[test]
fn verbs_take_or_refuse_what_peft_wrote() {
    let cases = std::fs::read_dir(fixture("golden")).expect("the cases");
    let mut seen = 0;
    for case in cases {
        let path = case.expect("a case").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let (base, adapter) = (path.join("input/base"), path.join("input/adapter"));
        if !name.starts_with("merge_") || !base.is_dir() || !adapter.is_dir() {
            continue;
        }
        seen += 1;
        check(&name, &base, &adapter);
    }
    assert!(seen > 30, "{seen} cases");
}
