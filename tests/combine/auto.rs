//! `--method auto` chooses by what adapters write over each other, says why, and does what the method and the weights
//! that it names do.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::made::Workshop;
use crate::common::{Peft, Random, Tensors, lora_tool, read};

const MODULE: &str = "model.layers.0.self_attn.q_proj";
const SIZE: usize = 24;

/// Runs a line; its JSON.
#[track_caller]
fn run(verb: &str, paths: &[&Path], output: &Path, flags: &str) -> Value {
    let mut command = lora_tool();
    command.arg(verb).args(paths).arg("-o").arg(output).args(["--force", "--json"]);
    let done = command.args(flags.split_whitespace()).output().expect("it runs");
    assert!(done.status.success(), "{flags}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("JSON")
}

/// What a line that is refused says.
#[track_caller]
fn refused(verb: &str, paths: &[&Path], output: &Path, flags: &str) -> String {
    let mut command = lora_tool();
    command.arg(verb).args(paths).arg("-o").arg(output).args(flags.split_whitespace());
    let done = command.output().expect("it runs");
    assert_eq!(done.status.code(), Some(2), "{flags}");
    assert!(!output.exists(), "{flags} leaves something");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// An adapter of rank 2 that writes to a part of the outputs, with inputs of its own.
fn adapter(workshop: &Workshop, name: &str, seed: u64, outputs: std::ops::Range<usize>) -> PathBuf {
    let mut random = Random::new(seed);
    let down = random.values(2 * SIZE, 1.0);
    let mut up = random.values(SIZE * 2, 1.0);
    for (at, value) in up.iter_mut().enumerate() {
        *value = if outputs.contains(&(at / 2)) { *value } else { 0.0 };
    }
    Peft::new(2, 4.0).linear(MODULE, 2, &down, &up).save(&workshop.path(name))
}

#[test]
fn it_does_what_it_says_that_it_does() {
    let workshop = Workshop::new();
    let make = |name: &str, seed, outputs| adapter(&workshop, name, seed, outputs);
    let apart = [make("a", 1, 0..12), make("b", 2, 12..24)];
    let together = [make("c", 3, 0..12), make("d", 4, 0..12)];
    let four =
        [make("e", 5, 0..6), make("f", 6, 6..12), make("g", 7, 12..18), make("h", 8, 18..24)];
    for (adapters, method, factor) in [
        (apart.as_slice(), "linear", 1.0),
        (together.as_slice(), "df-regmean", 1.0),
        (four.as_slice(), "df-regmean", 0.7),
    ] {
        let paths: Vec<&Path> = adapters.iter().map(PathBuf::as_path).collect();
        let (found, named) = (workshop.path("found"), workshop.path("named"));
        let report = run("combine", &paths, &found, "--method auto");
        assert_eq!(report["method"], method);
        assert_eq!(report["chosen"]["method"], method);
        assert_eq!(report["chosen"]["factor"], factor);
        assert_eq!(report["inputs"][1]["weight"], factor);
        let weights = vec![factor.to_string(); adapters.len()].join(" ");
        run("combine", &paths, &named, &format!("--method {method} -w {weights}"));
        assert_eq!(read(&found), read(&named), "{method} {factor}");
        // What compare advises is what is done.
        let mut compare = lora_tool();
        let advice = compare.arg("compare").args(&paths).arg("--json").output().expect("it runs");
        let advice: Value = serde_json::from_slice(&advice.stdout).expect("JSON");
        assert_eq!(advice["advice"], report["chosen"]);
    }
}

/// A kohya file of two 1 × 1 convolutions.
fn convolutions(workshop: &Workshop, name: &str, seed: u64) -> PathBuf {
    let mut random = Random::new(seed);
    let mut file = Tensors::new();
    for module in ["lora_unet_down_blocks_0_conv", "lora_unet_down_blocks_1_conv"] {
        file = file
            .f32(&format!("{module}.alpha"), &[], &[2.0])
            .f32(&format!("{module}.lora_down.weight"), &[2, SIZE, 1, 1], &random.values(48, 1.0))
            .f32(&format!("{module}.lora_up.weight"), &[SIZE, 2, 1, 1], &random.values(48, 1.0));
    }
    file.save(&workshop.path(name))
}

#[test]
fn convolutions_are_chosen_for_apart() {
    let workshop = Workshop::new();
    let make = |at: u64| convolutions(&workshop, &format!("{at}.safetensors"), at);
    let adapters: Vec<PathBuf> = (1..=4).map(make).collect();
    let paths: Vec<&Path> = adapters.iter().map(PathBuf::as_path).collect();
    let (found, named) = (workshop.path("found.safetensors"), workshop.path("named.safetensors"));
    let report = run("combine", &paths[..2], &found, "--method auto");
    assert_eq!((&report["method"], &report["rank"]), (&"ties".into(), &"4".into()));
    run("combine", &paths[..2], &named, "--method ties --rank 4");
    assert_eq!(read(&found), read(&named));
    let report = run("combine", &paths, &found, "--method auto");
    assert_eq!(report["method"], "tsv");
    run("combine", &paths, &named, "--method tsv -w 0.7 0.7 0.7 0.7");
    assert_eq!(read(&found), read(&named));
}

#[test]
fn a_merge_does_what_a_combination_does() {
    let workshop = Workshop::new();
    let base = workshop.path("base/model.safetensors");
    let weight = Random::new(9).values(SIZE * SIZE, 0.1);
    Tensors::new().f32(&format!("{MODULE}.weight"), &[SIZE, SIZE], &weight).save(&base);
    let a = adapter(&workshop, "a", 1, 0..12);
    let (b, c) = (adapter(&workshop, "b", 2, 12..24), adapter(&workshop, "c", 3, 0..24));
    let (found, named) = (workshop.path("found"), workshop.path("named"));
    let report = run("merge", &[&base, &a, &b], &found, "--method auto");
    assert_eq!(report["chosen"]["rule"], "spill < 5 %");
    run("merge", &[&base, &a, &b], &named, "");
    assert_eq!(read(&found), read(&named));
    let report = run("merge", &[&base, &a, &c], &found, "--method auto");
    assert_eq!(report["chosen"]["method"], "df-regmean");
    run("merge", &[&base, &a, &c], &named, "--method df-regmean");
    assert_eq!(read(&found), read(&named));
    let combined = workshop.path("combined");
    run("combine", &[&a, &c], &combined, "--method auto");
    run("merge", &[&base, &combined], &named, "");
    let name = format!("{MODULE}.weight");
    let (found, named) = (read(&found)[&name].values(), read(&named)[&name].values());
    for (merged, added) in found.iter().zip(&named) {
        assert!((merged - added).abs() < 1e-5, "{merged} {added}");
    }
}

#[test]
fn what_is_for_one_method_is_not_for_auto() {
    let workshop = Workshop::new();
    let (a, b) = (adapter(&workshop, "a", 1, 0..12), adapter(&workshop, "b", 2, 12..24));
    for flags in ["--density 0.3", "--space core", "--compat peft"] {
        let line = format!("--method auto {flags}");
        let said = refused("combine", &[&a, &b], &workshop.path("none"), &line);
        assert!(said.contains("--method auto chooses the method and its parameters"), "{said}");
    }
}

/// λ is on top of whatever a method makes, biases and stored differences with it.
#[test]
fn lambda_is_the_same_for_every_method() {
    let workshop = Workshop::new();
    let (a, b) = (adapter(&workshop, "a", 1, 0..24), adapter(&workshop, "b", 2, 0..24));
    for method in ["auto", "linear", "cat", "df-regmean", "karcher", "slerp", "ema", "shared-basis"]
    {
        let (one, half) = (workshop.path("one"), workshop.path("half"));
        let rank = if method == "cat" { "" } else { "--rank 4" };
        run("combine", &[&a, &b], &one, &format!("--method {method} {rank}"));
        run("combine", &[&a, &b], &half, &format!("--method {method} {rank} --lambda -0.5"));
        let (one, half) = (crate::common::dense::deltas(&one), crate::common::dense::deltas(&half));
        let difference = half[MODULE].plus(&one[MODULE].scaled(0.5)).norm() / one[MODULE].norm();
        assert!(difference < 1e-6, "{method}: {difference}");
    }
    let base = workshop.path("base/model.safetensors");
    let weight = vec![0.0; SIZE * SIZE];
    Tensors::new().f32(&format!("{MODULE}.weight"), &[SIZE, SIZE], &weight).save(&base);
    for method in ["linear", "karcher", "ties"] {
        let (one, half) = (workshop.path("one"), workshop.path("half"));
        run("merge", &[&base, &a, &b], &one, &format!("--method {method}"));
        run("merge", &[&base, &a, &b], &half, &format!("--method {method} --lambda 0.5"));
        let name = format!("{MODULE}.weight");
        let (one, half) = (read(&one)[&name].values(), read(&half)[&name].values());
        for (one, half) in one.iter().zip(&half) {
            assert!((one / 2.0 - half).abs() < 1e-7, "{method}: {one} {half}");
        }
    }
}
