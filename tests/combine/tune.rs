//! `tune`, with scores whose best is known: a target that the combined deltas are to come near, measured by the tool.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![cfg(unix)]

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::dense::deltas;
use crate::common::{Peft, Random, lora_tool};

const MODULE: &str = "model.layers.0.self_attn.q_proj";
const SIZE: usize = 16;

/// Two adapters that write to halves of their own, and what of each is best.
struct Scene {
    root: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { root: tempfile::tempdir().expect("a directory") };
        for (name, seed, half) in [("a", 1, 0), ("b", 2, 1)] {
            let mut random = Random::new(seed);
            let down = random.values(2 * SIZE, 1.0);
            let mut up = random.values(SIZE * 2, 1.0);
            let own = |at: usize| (at / SIZE) == half;
            up.iter_mut().enumerate().for_each(|(at, v)| *v = if own(at) { *v } else { 0.0 });
            Peft::new(2, 2.0).linear(MODULE, 2, &down, &up).save(&scene.path(name));
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn run(&self, flags: &[&str]) -> (Option<i32>, String, String) {
        let mut command = lora_tool();
        let done = command.current_dir(self.root.path()).arg("tune").args(flags).output();
        let done = done.expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    }

    fn left_over(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.path()).expect("listed");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// A command that counts its runs and prints how far a norm is from 3: the norm that the tool reports of a candidate.
fn command() -> String {
    let tool = assert_cmd::cargo::cargo_bin("lora-tool");
    format!(
        "echo run >> runs; {} inspect {{adapter}} --spectrum --json | awk -F'[:,]' '/\"norm\"/ {{ d = $2 - 3; \
         print (d < 0 ? -d : d); exit }}'",
        tool.display()
    )
}

fn runs(scene: &Scene) -> usize {
    std::fs::read_to_string(scene.path("runs")).expect("counted").lines().count()
}

/// The distance of a combined adapter's norm from 3.
fn distance(path: &Path) -> f64 {
    (deltas(path)[MODULE].norm() - 3.0).abs()
}

#[test]
fn the_recipe_makes_what_scored_best() {
    let scene = Scene::new();
    let command = command();
    let flags =
        ["a", "b", "--method", "linear", "--minimize", "--score", &command, "-o", "tuned.yaml"];
    let (code, printed, said) = scene.run(&[&flags[..], &["--json"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let report: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(runs(&scene), 10, "6 + 2·2 candidates");
    let trials = report["trials"].as_array().expect("a list");
    let scores = trials.iter().map(|trial| trial["score"].as_f64().expect("a number"));
    let best = scores.clone().fold(f64::INFINITY, f64::min);
    assert_eq!(report["best"]["score"], best);
    assert!(best < scores.clone().next().expect("a first") / 4.0, "{printed}");
    assert_eq!(said.lines().count(), 11, "a head and a line a candidate: {said}");
    assert_eq!(scene.left_over(), ["a", "b", "runs", "tuned.yaml"]);
    let mut run = lora_tool();
    run.current_dir(scene.root.path()).args(["run", "tuned.yaml", "-o", "out"]).assert().success();
    let off = (distance(&scene.path("out")) - best).abs();
    assert!(off < 1e-4, "the recipe is off by {off}");
    // Existing recipes stay.
    assert_eq!(scene.run(&flags).0, Some(2));
}

#[test]
fn a_search_that_broke_off_goes_on() {
    let scene = Scene::new();
    // Fails at its fifth run.
    let broken = format!(
        "test \"$(cat runs 2>/dev/null | wc -l)\" -ne 4 -o -e mended || exit 3; {}",
        command()
    );
    let flags =
        ["a", "b", "--method", "linear", "--minimize", "--score", &broken, "-o", "tuned.yaml"];
    let (code, _, said) = scene.run(&flags);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("ended with exit status: 3"), "{said}");
    assert_eq!(scene.left_over(), ["a", "b", "runs", "tuned.yaml.state.json"]);
    std::fs::write(scene.path("mended"), "").expect("written");
    let (code, _, said) = scene.run(&flags);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("(known)").count(), 4, "{said}");
    assert_eq!(runs(&scene), 10);
    let resumed = std::fs::read(scene.path("tuned.yaml")).expect("a recipe");
    // The same search in one go finds the same.
    std::fs::remove_file(scene.path("tuned.yaml")).expect("removed");
    assert_eq!(scene.run(&flags).0, Some(0));
    assert_eq!(std::fs::read(scene.path("tuned.yaml")).expect("a recipe"), resumed);
}

#[test]
fn what_cannot_be_scored_is_said() {
    let scene = Scene::new();
    for (flags, text) in [
        (vec!["--score", "echo 1"], "--score names no candidate: write {adapter}"),
        (vec!["--score", "echo {model}"], "give the base with --base"),
        (vec!["--score", "echo {adapter}", "--base", "a"], "--base is for {model} in --score"),
        (vec!["--score", "echo {adapter} much"], "it printed `tuned.yaml.candidate much`"),
        (vec!["--score", "true {adapter}; echo nan"], "its last word is to be the score, a number"),
    ] {
        let (code, _, said) = scene.run(&[&["a", "b", "-o", "tuned.yaml"], &flags[..]].concat());
        assert_eq!(code, Some(2), "{flags:?}");
        assert!(said.contains(text), "{said}");
        assert!(!scene.path("tuned.yaml").exists());
    }
    // Another search's state is not taken up.
    std::fs::write(scene.path("tuned.yaml.state.json"), r#"{"search": {}, "trials": []}"#)
        .expect("written");
    let (code, _, said) =
        scene.run(&["a", "b", "-o", "tuned.yaml", "--score", "echo 1 # {adapter}"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("it is the state of a search over other adapters"), "{said}");
}
