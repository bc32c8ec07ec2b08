//! What a combination of PEFT adapters carries beside the deltas: biases, replaced tensors, and a
//! config that loads what is there and nothing else.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use crate::common::dense::{Part, adapter, config, deltas, relative_error, weighted_sum};
use crate::common::made::{How, Workshop, made};
use crate::common::{Random, Tensors, lora_tool, read};
use lora_tool::format::Dtype;
use serde_json::{Value, json};

const Q: &str = "model.layers.0.q_proj";
const K: &str = "model.layers.0.k_proj";
const F32: f64 = 1e-6;

fn run(workshop: &Workshop, line: &str) -> (bool, String) {
    let mut command = lora_tool();
    command.current_dir(workshop.path("")).args(line.split_whitespace());
    let done = command.output().expect("it runs");
    (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
}

fn runs(workshop: &Workshop, line: &str) -> PathBuf {
    let (done, said) = run(workshop, line);
    assert!(done, "{line}\n{said}");
    workshop.path("out")
}

fn tensors(path: &Path) -> PathBuf {
    path.join("adapter_model.safetensors")
}

/// Every module of the file is a target as PEFT finds them, and every target is a module of `all`.
fn targets_just(out: &Path, all: &[&str]) {
    let config = config(out);
    let targets: Vec<&str> = config["target_modules"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let excluded = config.get("exclude_modules").filter(|value| !value.is_null());
    assert_eq!(excluded, None);
    let hit = |name: &str| targets.iter().any(|t| name == *t || name.ends_with(&format!(".{t}")));
    let written = adapter(out);
    for name in all {
        assert_eq!(hit(name), written.contains_key(*name), "{name} by {targets:?}");
    }
}

#[test]
fn merging_the_combination_is_merging_the_inputs() {
    for (dtype, width) in [(Dtype::F32, 24), (Dtype::BF16, 8)] {
        let workshop = Workshop::new();
        let mut random = Random::new(9);
        Tensors::new()
            .float(&format!("{Q}.weight"), dtype, &[24, 40], &random.values(960, 1.0))
            .float(&format!("{K}.weight"), dtype, &[16, 40], &random.values(640, 1.0))
            .save(&workshop.path("base.safetensors"));
        workshop.peft("a", 1, &[(Q, 24, 40, 6)], How::default());
        workshop.peft(
            "b",
            2,
            &[(Q, 24, 40, 3), (K, 16, 40, 5)],
            How { rslora: true, ..How::default() },
        );
        runs(&workshop, "combine a b -w 0.7 -0.3 -o ab");
        runs(&workshop, "merge base.safetensors ab -o one.safetensors");
        runs(&workshop, "merge base.safetensors a b -w 0.7 -0.3 -o two.safetensors");
        let (one, two) =
            (read(&workshop.path("one.safetensors")), read(&workshop.path("two.safetensors")));
        for (name, tensor) in &one {
            // The distance of neighbours at the largest value: deltas near 0 carry the same error.
            let (one, two) = (tensor.values(), two[name].values());
            let largest = two.iter().fold(0f64, |most, value| most.max(value.abs()));
            for (x, y) in one.iter().zip(&two) {
                let ulp = f64::powi(2.0, largest.max(y.abs()).log2().floor() as i32 + 1 - width);
                assert!((x - y).abs() <= ulp, "{name}: {x} and {y}, {dtype}");
            }
        }
    }
}

#[test]
fn biases_of_the_updates_are_summed() {
    let workshop = Workshop::new();
    let with_bias = |seed: u64, rank: usize, value: f32| {
        let peft = made(seed, &[(Q, 4, 6, rank)], How { alpha: 3.0, ..How::default() });
        peft.field("lora_bias", true).tensor(
            &format!("{Q}.lora_B.bias"),
            &[4],
            &[value, 1.0, 0.0, -2.0],
        )
    };
    let a = with_bias(1, 2, 0.5).save(&workshop.path("a"));
    let b = with_bias(2, 4, 0.25).save(&workshop.path("b"));
    made(3, &[(Q, 4, 6, 2)], How::default()).save(&workshop.path("plain"));
    let bias = |part: &Part| part.bias.clone().expect("a bias");
    let one = |path: &Path| bias(&adapter(path)[Q]);
    for (line, expected) in [
        ("combine a b -w 0.7 -2 -o out", [(0.7, one(&a)), (-2.0, one(&b))]),
        ("combine a b plain -w 0.7 -2 1 -o out --force", [(0.7, one(&a)), (-2.0, one(&b))]),
        ("combine a b -w 0.7 -2 -o out --force --method cat", [(0.7, one(&a)), (-2.0, one(&b))]),
        ("resize a --rank 1 -o out --force", [(1.0, one(&a)), (0.0, one(&b))]),
    ] {
        let out = runs(&workshop, line);
        for (at, found) in one(&out).iter().enumerate() {
            let sum: f64 = expected.iter().map(|(weight, bias)| weight * bias[at]).sum();
            assert!((found - sum).abs() < F32, "{line}: {found}, expected {sum}");
        }
        assert_eq!(config(&out)["lora_bias"], json!(true), "{line}");
    }
}

#[test]
fn replaced_tensors_pass_or_are_the_users_choice() {
    let workshop = Workshop::new();
    let replacing = |seed: u64, values: &[f32]| {
        let peft = made(seed, &[(Q, 4, 6, 2)], How::default());
        peft.field("modules_to_save", json!(["score"])).tensor("score.weight", &[1, 2], values)
    };
    replacing(1, &[1.0, 2.0]).save(&workshop.path("a"));
    replacing(2, &[1.0, 2.0]).save(&workshop.path("same"));
    replacing(3, &[2.0, 5.0]).save(&workshop.path("other"));
    made(4, &[(Q, 4, 6, 2)], How::default()).save(&workshop.path("none"));
    let score = |out: &Path| {
        read(&tensors(out)).get("base_model.model.score.weight").map(crate::common::Read::values)
    };
    let saved = |out: &Path| config(out)["modules_to_save"].clone();
    for line in
        ["combine a same -o out", "combine none a -o out --force", "resize a --rank 1 -o out -f"]
    {
        let out = runs(&workshop, line);
        assert_eq!(score(&out), Some(vec![1.0, 2.0]), "{line}");
        assert_eq!(saved(&out), json!(["score"]), "{line}");
    }
    let (done, said) = run(&workshop, "combine a other -o out --force");
    assert!(!done && said.contains("a and other replace it with different values"), "{said}");
    assert!(
        said.contains("hint: say which to take: --on-conflict first, average or drop"),
        "{said}"
    );
    for (choice, expected) in
        [("first", Some(vec![1.0, 2.0])), ("average", Some(vec![1.5, 3.5])), ("drop", None)]
    {
        let out =
            runs(&workshop, &format!("combine a other -o out --force --on-conflict {choice}"));
        assert_eq!(score(&out), expected, "{choice}");
        assert_eq!(saved(&out).is_null(), expected.is_none(), "{choice}");
    }
}

#[test]
fn the_config_says_what_the_factors_are() {
    let workshop = Workshop::new();
    let shapes = |rank| [(Q, 12, 10, rank), (K, 8, 10, rank + 2), ("k_proj", 6, 6, 1)];
    let a = workshop.peft("a", 1, &shapes(3), How { rslora: true, ..How::default() });
    let b = workshop.peft("b", 2, &shapes(1), How { alpha: 5.0, ..How::default() });
    let expected = weighted_sum(&[(1.0, deltas(&a)), (1.0, deltas(&b))]);
    for flags in ["", "--method cat", "--rank energy:0.9", "--rank 2", "--rank lossless --uniform"]
    {
        let out = runs(&workshop, &format!("combine a b -o out --force {flags}"));
        // Reading it back holds every rank in the config to its factors.
        let parts = adapter(&out);
        let config = config(&out);
        assert_eq!(config["use_rslora"], json!(false), "{flags}");
        assert!(parts.values().all(|part| part.alpha == part.rank as f64), "{flags}");
        if flags.contains("uniform") || flags == "--rank 2" {
            let (first, k) = (parts[Q].rank, parts["k_proj"].rank);
            assert_eq!((config["rank_pattern"] == json!({})), first == k, "{flags}");
        }
        targets_just(&out, &[Q, K, "k_proj"]);
        if !flags.contains("energy") && flags != "--rank 2" {
            assert!(relative_error(&deltas(&out), &expected) < F32, "{flags}");
        }
        runs(&workshop, "inspect out --spectrum");
        let again =
            runs(&workshop, "resize out --rank lossless -o again --force").with_file_name("again");
        assert!(relative_error(&deltas(&again), &deltas(&out)) < F32, "{flags}");
    }
}

#[test]
fn nothing_without_factors_is_a_target() {
    let workshop = Workshop::new();
    let later = "model.layers.1.q_proj";
    workshop.peft("a", 1, &[(Q, 8, 8, 2), (later, 8, 8, 2)], How::default());
    workshop.peft("b", 2, &[(K, 8, 8, 2)], How::default());
    // Its suffixes would hit a module that only the other adapter has.
    let only = made(3, &[(Q, 8, 8, 2)], How::default())
        .field("exclude_modules", json!(["layers.1.q_proj"]));
    only.save(&workshop.path("only"));
    let all = [Q, K, later];
    for line in [
        "combine a b -o out",
        "combine a b -w 1 0 -o out --force",
        "combine a b --module-weight layers.1=0 -o out --force",
        "combine a b --exclude k_proj -o out --force",
        "combine only a -o out --force",
        "combine a only -o out --force",
    ] {
        targets_just(&runs(&workshop, line), &all);
    }
}
