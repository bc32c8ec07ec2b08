//! Every line that `check` prints as a fix, run as it is printed: what it writes passes the check, and merges
//! to the same weights. Adapters with one thing wrong each, in front of every program.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod experts;
mod language;
mod pictures;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::{lora_tool, read};

fn check(adapter: &Path, program: &str, base: &Path) -> Value {
    let mut command = lora_tool();
    command.arg("check").arg(adapter).args(["--for", program, "--json", "--against"]).arg(base);
    let done = command.output().expect("it runs");
    serde_json::from_slice(&done.stdout).unwrap_or_else(|_| {
        panic!("{}: {}", adapter.display(), String::from_utf8_lossy(&done.stderr))
    })
}

/// Names of the rules that found something wrong.
fn rules(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().expect("findings").iter();
    let wrong = findings.filter(|finding| finding["severity"] != "note");
    wrong.map(|finding| finding["rule"].as_str().expect("a name").to_owned()).collect()
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

/// What a merge changes of the base.
fn update(base: &Path, adapter: &Path, out: &Path) -> BTreeMap<String, Vec<f64>> {
    let mut command = lora_tool();
    command.arg("merge").arg(base).arg(adapter).arg("--force").arg("-o").arg(out);
    let done = command.output().expect("it runs");
    assert!(
        done.status.success(),
        "{}: {}",
        adapter.display(),
        String::from_utf8_lossy(&done.stderr)
    );
    let (before, after) =
        (read(&base.join("model.safetensors")), read(&out.join("model.safetensors")));
    let change = |(name, tensor): (String, crate::common::Read)| {
        let own = tensor.values().into_iter().zip(before[&name].values()).map(|(a, b)| a - b);
        (name, own.collect())
    };
    after.into_iter().map(change).collect()
}

fn distance(a: &BTreeMap<String, Vec<f64>>, b: &BTreeMap<String, Vec<f64>>) -> f64 {
    assert!(a.keys().eq(b.keys()));
    let pairs = || a.values().flatten().zip(b.values().flatten());
    let off: f64 = pairs().map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = pairs().map(|(a, _)| a * a).sum();
    (off / norm).sqrt()
}

/// The output that a fix line names.
fn output(directory: &Path) -> PathBuf {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    let is_out =
        |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("OUT"));
    let out = paths.find(is_out).expect("an output");
    // Ollama's directory has a Modelfile beside the adapter.
    let gguf =
        out.is_dir().then(|| std::fs::read_dir(&out).expect("a directory")).and_then(|entries| {
            entries
                .map(|entry| entry.expect("an entry").path())
                .find(|path| path.extension().is_some_and(|e| e == "gguf"))
        });
    gguf.unwrap_or(out)
}

/// A base, adapters that are for it, and the programs that are asked of each.
struct World {
    base: PathBuf,
    adapters: Vec<(&'static str, PathBuf)>,
    programs: Vec<&'static str>,
}

/// What was mended, by program, and every fix that does not mend.
#[derive(Default)]
struct Mended {
    rules: BTreeMap<&'static str, BTreeSet<String>>,
    wrong: Vec<String>,
}

impl Mended {
    /// Runs the fixes that a world's programs print.
    fn run(&mut self, world: &World, scratch: &Path) {
        for (what, path) in &world.adapters {
            let mut before = None;
            for program in &world.programs {
                let report = check(path, program, &world.base);
                let found = rules(&report);
                let Some(fix) = report["programs"][0]["fix"].as_str() else { continue };
                // Of what was found and mended together once, another adapter shows nothing new.
                let known = self.rules.get(program);
                if known.is_some_and(|known| known.is_superset(&found)) {
                    continue;
                }
                let folder = scratch.join("run");
                let _ = std::fs::remove_dir_all(&folder);
                std::fs::create_dir(&folder).expect("a directory");
                let done = shell(fix, &folder);
                if !done.status.success() {
                    let said = String::from_utf8_lossy(&done.stderr);
                    self.wrong.push(format!("{what}, {program}: {fix}: {said}"));
                    continue;
                }
                let out = output(&folder);
                let again = check(&out, program, &world.base);
                if again["answer"] != "yes" {
                    self.wrong.push(format!("{what}, {program}: {fix}: {:?}", rules(&again)));
                    continue;
                }
                let before =
                    before.get_or_insert_with(|| update(&world.base, path, &scratch.join("m")));
                let off = distance(before, &update(&world.base, &out, &scratch.join("n")));
                if off.is_nan() || off > 1e-5 {
                    self.wrong.push(format!("{what}, {program}: {fix}: off by {off}"));
                }
                self.rules.entry(program).or_default().extend(found);
            }
        }
    }

    /// Fails if a fix does not mend, or others are mended than are expected.
    fn check(self, expected: &[(&'static str, &[&'static str])]) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        let mended: BTreeMap<&str, Vec<String>> =
            self.rules.into_iter().map(|(own, rules)| (own, rules.into_iter().collect())).collect();
        let expected: BTreeMap<&str, Vec<String>> = expected
            .iter()
            .map(|(own, rules)| (*own, rules.iter().map(|rule| (*rule).to_owned()).collect()))
            .collect();
        assert_eq!(mended, expected);
    }
}

/// Programs that are asked of language models.
const SERVERS: [&str; 14] = [
    "vllm",
    "vllm@0.31",
    "sglang",
    "tensorrt-llm",
    "lmdeploy",
    "tgi",
    "lorax",
    "llama.cpp",
    "ollama",
    "mlx",
    "peft",
    "peft@0.5",
    "peft@0.13",
    "openvino",
];

/// Programs that are asked of models of pictures.
const PAINTERS: [&str; 7] = [
    "diffusers",
    "diffusers@0.39",
    "comfyui",
    "forge",
    "invokeai",
    "nunchaku",
    "stable-diffusion.cpp",
];

#[test]
fn every_program_is_asked() {
    for program in ::lora_tool::ops::check::programs() {
        assert!(SERVERS.iter().chain(&PAINTERS).any(|asked| *asked == program), "{program}");
    }
}

#[test]
fn every_fix_as_printed_passes_the_check_and_merges_the_same() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| scratch.path().join(name);
    let adapters = language::adapters().into_iter().enumerate();
    let mut adapters: Vec<(&str, PathBuf)> = adapters
        .map(|(number, (what, adapter))| (what, adapter.save(&path(&format!("a {number}")))))
        .collect();
    adapters.push(("tokens beside it", language::with_tokens(&path("tokens"))));
    let base = language::base(&path("base"));
    let mut mended = Mended::default();
    mended.run(&World { base, adapters, programs: SERVERS.to_vec() }, scratch.path());
    mended.check(&language::EXPECTED);
}

#[test]
fn every_fix_of_experts_passes_the_check_and_merges_the_same() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut mended = Mended::default();
    for world in experts::worlds(scratch.path()) {
        mended.run(&world, scratch.path());
    }
    mended.check(&experts::EXPECTED);
}

#[test]
fn every_fix_of_pictures_passes_the_check_and_merges_the_same() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut mended = Mended::default();
    for world in pictures::worlds(scratch.path()) {
        mended.run(&world, scratch.path());
    }
    mended.check(&pictures::EXPECTED);
}
