//! Inputs named as on the Hub, out of its local cache.
#![cfg(unix)]
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::common::{fixture, lora_tool};

/// A cache in `huggingface_hub`'s layout: files are links into `blobs`, a revision names a commit.
fn cached(cache: &Path, repository: &str, revision: &str, commit: &str, files: &Path) {
    let folder = cache.join(format!("models--{}", repository.replace('/', "--")));
    let snapshot = folder.join("snapshots").join(commit);
    for directory in [&folder.join("blobs"), &folder.join("refs"), &snapshot] {
        fs::create_dir_all(directory).expect("a directory");
    }
    fs::write(folder.join("refs").join(revision), commit).expect("written");
    for (number, entry) in fs::read_dir(files).expect("listed").enumerate() {
        let path = entry.expect("an entry").path();
        let blob = format!("{commit}{number}");
        fs::copy(&path, folder.join("blobs").join(&blob)).expect("copied");
        let name = path.file_name().expect("a name");
        symlink(Path::new("../../blobs").join(blob), snapshot.join(name)).expect("linked");
    }
}

/// A directory with a cache of a base and of two revisions of an adapter whose config names that base.
fn set_up() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let cache = root.path().join("cache");
    cached(&cache, "org/base", "main", "aa11", &fixture("llama/base"));
    cached(&cache, "org/adapter", "main", "bb22", &named("llama/task", root.path()));
    cached(&cache, "org/adapter", "v1", "cc33", &named("llama/style", root.path()));
    root
}

/// A copy of an adapter whose config names `org/base`.
fn named(adapter: &str, root: &Path) -> PathBuf {
    let copy = root.join(adapter.replace('/', "-"));
    fs::create_dir_all(&copy).expect("a directory");
    let from = fixture(adapter);
    let config = fs::read(from.join("adapter_config.json")).expect("read");
    let mut config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    config["base_model_name_or_path"] = "org/base".into();
    fs::write(copy.join("adapter_config.json"), config.to_string()).expect("written");
    let weights = "adapter_model.safetensors";
    fs::copy(from.join(weights), copy.join(weights)).expect("copied");
    copy
}

fn run(root: &Path, line: &str) -> (Option<i32>, String) {
    let done = lora_tool()
        .current_dir(root)
        .env("HF_HUB_CACHE", root.join("cache"))
        .args(line.split_whitespace())
        .output()
        .expect("it runs");
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

fn weights(directory: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("an output")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"))
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("read")).collect()
}

#[test]
fn names_of_the_hub_give_the_bytes_of_paths() {
    let root = set_up();
    let at = |name: &str| root.path().join(name);
    let base = fixture("llama/base");
    for (line, adapter) in [
        ("merge org/base org/adapter@v1", "llama-style"),
        ("merge hf://org/base hf://org/adapter@v1", "llama-style"),
        ("merge org/base org/adapter@cc33", "llama-style"),
        ("merge org/adapter@v1", "llama-style"),
        ("merge org/adapter", "llama-task"),
        ("merge org/adapter:1.0", "llama-task"),
    ] {
        let expected = format!("merge {} {adapter} -o expected -f", base.display());
        let (code, said) = run(root.path(), &expected);
        assert_eq!(code, Some(0), "{said}");
        let (code, said) = run(root.path(), &format!("{line} -o out -f"));
        assert_eq!(code, Some(0), "{line}: {said}");
        assert!(weights(&at("out")) == weights(&at("expected")), "{line}");
    }
    fs::write(
        at("recipe.yaml"),
        "base: org/base\nadapters:\n  - path: hf://org/adapter@v1\noutput: out2\n",
    )
    .expect("written");
    let (code, said) = run(root.path(), "run recipe.yaml");
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(root.path(), "merge org/base org/adapter@v1 -o expected -f");
    assert_eq!(code, Some(0), "{said}");
    let tensors = |directory: &Path| {
        let files =
            fs::read_dir(directory).expect("listed").map(|entry| entry.expect("an entry").path());
        let files =
            files.filter(|file| file.extension().is_some_and(|ending| ending == "safetensors"));
        files
            .flat_map(|file| crate::common::read(&file))
            .map(|(name, read)| (name, read.values()))
            .collect::<Vec<_>>()
    };
    assert!(tensors(&at("out2")) == tensors(&at("expected")));
}

#[test]
fn a_directory_of_that_name_wins() {
    let root = set_up();
    fs::create_dir_all(root.path().join("org")).expect("a directory");
    symlink(fixture("llama/style"), root.path().join("org/adapter")).expect("linked");
    let (code, said) = run(root.path(), "merge org/base org/adapter -o out");
    assert_eq!(code, Some(0), "{said}");
    let line = format!(
        "merge {} {} -o expected",
        fixture("llama/base").display(),
        fixture("llama/style").display()
    );
    assert_eq!(run(root.path(), &line).0, Some(0));
    assert!(weights(&root.path().join("out")) == weights(&root.path().join("expected")));
}

#[test]
fn what_is_not_there_is_said_in_one_paragraph() {
    let root = set_up();
    symlink(fixture("llama/style"), root.path().join("style")).expect("linked");
    for (line, expected) in [
        ("merge org/other org/adapter -o out", "hf download org/other"),
        ("merge org/base org/adapter@v9 -o out", "hf download org/adapter --revision v9"),
        ("merge hf://org/other org/adapter -o out", "hf download org/other"),
        ("merge hf://org org/adapter -o out", "names no repository"),
        ("merge org/base gopher://adapter -o out", "unknown scheme gopher://"),
        ("merge org/base hf://org/adapter@../../x -o out", "names no repository"),
        ("merge style -o out", "name the base first"),
    ] {
        let (code, said) = run(root.path(), line);
        assert_eq!(code, Some(2), "{line}: {said}");
        assert!(said.contains(expected), "{line}\nexpected: {expected}\nsaid: {said}");
        assert!(!root.path().join("out").exists(), "{line} left something");
    }
}

#[cfg(not(feature = "cloud"))]
#[test]
fn a_build_that_knows_no_stores_says_so() {
    let root = set_up();
    for line in [
        "merge s3://bucket/base org/adapter -o out",
        "merge org/base gs://bucket/adapter -o out",
        "merge org/base org/adapter -o s3://bucket/out",
        "inspect https://host/model.safetensors",
    ] {
        let (code, said) = run(root.path(), line);
        assert_eq!(code, Some(2), "{line}: {said}");
        assert!(said.contains("made without the feature `cloud`"), "{line}: {said}");
        assert!(!root.path().join("out").exists() && !root.path().join("s3:").exists(), "{line}");
    }
}
