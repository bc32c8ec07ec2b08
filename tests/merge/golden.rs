//! Merges recorded from PEFT and kohya's scripts (`fixtures/golden`), made again by the command and
//! held to each case's own tolerance.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::common::{Bench, Read, fixture, read};
use serde_json::Value;

type Stored = BTreeMap<String, Read>;

/// One recorded merge.
struct Case {
    name: String,
    directory: PathBuf,
    json: Value,
}

/// What goes into a merge.
struct Inputs {
    base: PathBuf,
    adapters: Vec<PathBuf>,
    options: String,
}

fn cases() -> Vec<Case> {
    let listed = std::fs::read_dir(fixture("golden")).expect("fixtures/golden is there");
    let directories = listed.map(|entry| entry.expect("a readable entry").path());
    let mut cases: Vec<Case> = directories.map(Case::open).collect();
    cases.retain(|case| case.name.starts_with("merge_"));
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

impl Case {
    fn open(directory: PathBuf) -> Self {
        let name = directory.file_name().expect("named").to_string_lossy().into_owned();
        let text = std::fs::read(directory.join("case.json")).expect("it has a case.json");
        let json = serde_json::from_slice(&text).expect("case.json is JSON");
        Self { name, directory, json }
    }

    /// A text of case.json, or the files of a list there.
    fn files(&self, pointer: &str) -> Vec<PathBuf> {
        let value = self.json.pointer(pointer).expect(pointer);
        let texts = value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
        texts.iter().map(|text| self.directory.join(text.as_str().expect(pointer))).collect()
    }

    /// The base and adapters as they are, or as a pipeline directory made of its components.
    fn inputs(&self, bench: &Bench) -> Inputs {
        if self.json.pointer("/inputs/base").is_some() {
            let base = self.files("/inputs/base").remove(0);
            return Inputs {
                base,
                adapters: self.files("/inputs/adapters"),
                options: String::new(),
            };
        }
        let base = bench.path("pipeline");
        for component in ["unet", "text_encoder"] {
            let file = self.files(&format!("/inputs/{component}")).remove(0);
            std::fs::create_dir_all(base.join(component)).expect("a directory");
            let copy = base.join(component).join(file.file_name().expect("named"));
            std::fs::copy(file, copy).expect("copied");
        }
        let ratios = self.json.pointer("/params/ratios").and_then(Value::as_array).expect("ratios");
        let ratios: Vec<String> = ratios.iter().map(ToString::to_string).collect();
        let options = format!("-w {}", ratios.join(" "));
        Inputs { base, adapters: self.files("/inputs/loras"), options }
    }

    /// The recorded tensors, named as the merged checkpoint names them.
    fn expected(&self) -> Stored {
        let mut tensors = Stored::new();
        let files = self.json["expected"].as_object().expect("expected files");
        for (component, file) in files.iter().filter(|(name, _)| *name != "holds") {
            let prefix = if component == "model" { String::new() } else { format!("{component}/") };
            let path = self.directory.join(file.as_str().expect("a path"));
            for (name, tensor) in read(&path) {
                tensors.insert(format!("{prefix}{name}"), tensor);
            }
        }
        tensors
    }

    /// Compares a merged checkpoint with the recorded one; says what is wrong.
    fn compare(&self, base: &Stored, merged: &Stored) -> Result<(), String> {
        let expected = self.expected();
        let names = |tensors: &Stored| tensors.keys().cloned().collect::<BTreeSet<_>>();
        for list in ["only_in_expected", "only_in_base"] {
            let known = self.json.get(list).is_none_or(|names| names == &Value::Array(Vec::new()));
            assert!(known, "{}: `{list}` is not empty, which this test does not know", self.name);
        }
        if names(base) != names(merged) {
            return Err(format!("tensors are {:?}, not {:?}", names(merged), names(base)));
        }
        if let Some(name) = expected.keys().find(|name| !base.contains_key(*name)) {
            return Err(format!("the peer wrote {name}, which the base lacks"));
        }
        let mut changed = 0;
        let (mut elements, mut equal) = (0, 0);
        for (name, before) in base {
            let after = &merged[name];
            let Some(peer) = expected.get(name).filter(|peer| *peer != before) else {
                if after != before {
                    return Err(format!("{name} is not the base's, which the peer left alone"));
                }
                continue;
            };
            changed += 1;
            if after == before {
                return Err(format!("{name} is the base's, which the peer changed"));
            }
            if (after.dtype, &after.shape) != (peer.dtype, &peer.shape) {
                let (dtype, shape) = (after.dtype, &after.shape);
                return Err(format!(
                    "{name} is {dtype} {shape:?}, not {} {:?}",
                    peer.dtype, peer.shape
                ));
            }
            elements += peer.values().len();
            equal += self.count_equal(name, after, peer)?;
        }
        match self.json.get("changed_tensors").and_then(Value::as_u64) {
            Some(count) if count != changed => {
                return Err(format!("{changed} tensors changed, not {count}"));
            }
            None if changed == 0 => return Err("no tensor changed".to_owned()),
            _ => {}
        }
        let note = self.json["tolerance"]["note"].as_str().unwrap_or_default();
        let rounded_once = note.contains("99.5%") || note.contains("single rounding");
        if rounded_once && (equal as f64) < 0.995 * elements as f64 {
            return Err(format!("only {equal} of {elements} elements are the peer's, bit for bit"));
        }
        Ok(())
    }

    /// How many elements are the peer's very own; an error if one is further off than tolerated.
    fn count_equal(&self, name: &str, after: &Read, peer: &Read) -> Result<usize, String> {
        let tolerance = |key: &str| self.json["tolerance"][key].as_f64().expect(key);
        let (relative, absolute) = (tolerance("rtol"), tolerance("atol"));
        let mut equal = 0;
        for (at, (got, want)) in after.values().iter().zip(peer.values()).enumerate() {
            equal += usize::from(got.to_bits() == want.to_bits());
            // Not `off > allowed`, which a NaN would pass.
            let fits = (got - want).abs() <= absolute + relative * want.abs();
            if !fits {
                return Err(format!("{name}[{at}] is {got}, the peer's is {want}"));
            }
        }
        Ok(equal)
    }
}

/// All files below a directory, by their path in it.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(path) = pending.pop() {
        for entry in std::fs::read_dir(&path).expect("a directory") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("readable");
                found.insert(path.strip_prefix(directory).expect("below").to_path_buf(), bytes);
            }
        }
    }
    found
}

/// Runs a check on every case, and lists all that fail.
fn each(check: impl Fn(&Case, &Bench, &Inputs) -> Result<(), String>) {
    let mut failures = Vec::new();
    for case in &cases() {
        let bench = Bench::new();
        if let Err(what) = check(case, &bench, &case.inputs(&bench)) {
            failures.push(format!("{}: {what}", case.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn merge(bench: &Bench, inputs: &Inputs, options: &str) -> PathBuf {
    let adapters: Vec<&Path> = inputs.adapters.iter().map(PathBuf::as_path).collect();
    bench.merge(&inputs.base, &adapters, &format!("{} {options}", inputs.options))
}

#[test]
fn all_cases_are_found() {
    let names: Vec<_> = cases().into_iter().map(|case| case.name).collect();
    assert_eq!(names.len(), 63, "{names:?}");
}

#[test]
fn merges_agree_with_the_peers() {
    each(|case, bench, inputs| case.compare(&read(&inputs.base), &read(&merge(bench, inputs, ""))));
}

#[test]
fn threads_and_ways_to_read_do_not_change_a_byte() {
    each(|_, bench, inputs| {
        let first = files(&merge(bench, inputs, ""));
        for options in ["--no-mmap", "--threads 1", "--threads 3 --no-mmap"] {
            if files(&merge(bench, inputs, options)) != first {
                return Err(format!("{options} changes the output"));
            }
        }
        Ok(())
    });
}

#[test]
fn several_adapters_may_be_merged_one_after_another() {
    let mut merged = Vec::new();
    for case in cases().iter().filter(|case| case.json["inputs"]["adapters"].get(1).is_some()) {
        let bench = Bench::new();
        let inputs = case.inputs(&bench);
        let mut stage = inputs.base.clone();
        for adapter in &inputs.adapters {
            stage = bench.merge(&stage, &[adapter], "");
        }
        let compared = case.compare(&read(&inputs.base), &read(&stage));
        assert_eq!(compared, Ok(()), "{}", case.name);
        merged.push(case.name.clone());
    }
    assert_eq!(merged, ["merge_two_adapters_one_call", "merge_two_sequential"]);
}

#[test]
fn a_pipeline_may_have_adapters_beside_its_components() {
    let case = Case::open(fixture("golden/merge_kohya_model"));
    let bench = Bench::new();
    let adapter = bench.path("lora.safetensors");
    std::fs::copy(&case.inputs(&bench).adapters[0], &adapter).expect("copied");
    let base = case.directory.join("input");
    let out = bench.merge(&base, &[&adapter], "-w 0.8");
    assert_eq!(case.compare(&read(&base), &read(&out)), Ok(()));
    let written: Vec<_> = files(&out).into_keys().collect();
    let expected = ["text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors"];
    assert_eq!(written, expected.map(PathBuf::from));
}
