//! compare and inspect --spectrum, held to dense f64 matrices and to pairs whose answers are known.
#![allow(clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::dense::{Dense, deltas};
use crate::common::made::{How, Workshop};
use crate::common::{Peft, Random, lora_tool};
use serde_json::{Value, json};

const Q: &str = "model.layers.0.q_proj";
const K: &str = "model.layers.0.k_proj";

fn json_of(verb: &str, paths: &[&Path], flags: &str) -> Value {
    let mut command = lora_tool();
    let done = command.arg(verb).args(paths).arg("--json").args(flags.split_whitespace()).output();
    let done = done.expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("JSON")
}

#[track_caller]
fn near(found: &Value, expected: f64, tolerance: f64) {
    let value = found.as_f64().unwrap_or_else(|| panic!("{found} is no number"));
    assert!(
        (value - expected).abs() <= tolerance * expected.abs().max(1.0),
        "{value}, expected {expected}"
    );
}

fn total(deltas: &BTreeMap<String, Dense>, others: &BTreeMap<String, Dense>) -> f64 {
    deltas.iter().filter_map(|(name, delta)| Some(delta.inner(others.get(name)?))).sum()
}

#[test]
fn numbers_are_those_of_the_dense_matrices() {
    let workshop = Workshop::new();
    let a = workshop.peft(
        "a",
        1,
        &[(Q, 20, 30, 3), (K, 9, 7, 8)],
        How { rslora: true, ..How::default() },
    );
    let b = workshop.peft("b", 2, &[(Q, 20, 30, 5)], How { alpha: 3.0, ..How::default() });
    let c = workshop.peft("c", 3, &[(Q, 20, 30, 2), (K, 9, 7, 1)], How::default());
    let weights = [0.5, -1.0, 2.0];
    let report = json_of("compare", &[&a, &b, &c], "-w 0.5 -1 2");
    let all: Vec<_> = [&a, &b, &c].map(|path| deltas(path)).into();
    let gram = |i: usize, j: usize| total(&all[i], &all[j]);
    for (i, summary) in report["adapters"].as_array().expect("a list").iter().enumerate() {
        let others = [0, 1, 2].map(|j| if i == j { 0.0 } else { weights[j] });
        near(&summary["norm"], gram(i, i).sqrt(), 1e-9);
        near(&summary["spill"], spill(&all, (i, weights[i]), others), 1e-9);
        near(&summary["weight"], weights[i], 0.0);
        assert_eq!(summary["modules"], json!(all[i].len()));
    }
    let pairs = report["pairs"].as_array().expect("a list");
    assert_eq!(pairs.len(), 3);
    for pair in pairs {
        let at = |name: &str| pair[name].as_u64().expect("a number") as usize;
        let (i, j) = (at("a"), at("b"));
        near(&pair["cosine"], gram(i, j) / (gram(i, i) * gram(j, j)).sqrt(), 1e-9);
        let loud = |at: usize| weights[at].abs() * gram(at, at).sqrt();
        near(&pair["norm_ratio"], loud(i) / loud(j), 1e-9);
        let shared: Vec<_> = all[i].keys().filter(|name| all[j].contains_key(*name)).collect();
        assert_eq!(pair["shared_modules"], json!(shared.len()));
        let modules = pair["modules"].as_array().expect("a list");
        assert_eq!(modules.len(), shared.len());
        for module in modules {
            let name = module["name"].as_str().expect("a name");
            let (x, y) = (&all[i][name], &all[j][name]);
            near(&module["cosine"], x.inner(y) / (x.norm() * y.norm()), 1e-9);
            near(&module["output_overlap"], overlap(&x.transposed(), &y.transposed()), 1e-9);
            near(&module["input_overlap"], overlap(x, y), 1e-9);
            let conflicts = x.values.iter().zip(&y.values).filter(|(x, y)| *x * *y < 0.0).count();
            let share = conflicts as f64 / x.values.len() as f64;
            // 60 000 samples or more a module: five standard errors.
            near(&module["sign_conflict"], share, 5.0 * (0.25f64 / 60_000.0).sqrt());
        }
    }
    let spills = report["spills"].as_array().expect("a list");
    assert_eq!(spills.len(), 3);
    for found in spills {
        let at = |name: &str| found[name].as_u64().expect("a number") as usize;
        for (on, other, name) in [(at("a"), at("b"), "on_a"), (at("b"), at("a"), "on_b")] {
            let alone = [0, 1, 2].map(|j| if j == other { weights[j] } else { 0.0 });
            near(&found[name], spill(&all, (on, weights[on]), alone), 1e-9);
        }
    }
    // What `combine` says of the same adapters is the same.
    let output = workshop.path("combined");
    let flags = format!("-w 0.5 -1 2 -o {}", output.display());
    let combined = json_of("combine", &[&a, &b, &c], &flags);
    for at in 0..3 {
        let number = |value: &Value| value.as_f64().expect("a number");
        let (input, summary) = (&combined["inputs"][at], &report["adapters"][at]);
        near(&input["spill"], number(&summary["spill"]), 1e-12);
        for name in ["a", "b", "on_a", "on_b"] {
            near(&combined["spills"][at][name], number(&spills[at][name]), 1e-12);
        }
    }
}

/// The root of Σ ‖Dᵀ·M‖² / ‖D‖² over the modules of an adapter, over its ‖D‖², M the weighted sum of the others.
fn spill(all: &[BTreeMap<String, Dense>], (on, weight): (usize, f64), others: [f64; 3]) -> f64 {
    let (mut written, mut energy) = (0.0, 0.0);
    for (name, delta) in &all[on] {
        let own = delta.scaled(weight);
        let mut sum = Dense::zeros(own.rows, own.columns);
        for (deltas, weight) in all.iter().zip(others) {
            if let Some(other) = deltas.get(name).filter(|_| weight != 0.0) {
                sum = sum.plus(&other.scaled(weight));
            }
        }
        let squares = own.inner(&own);
        energy += squares;
        let over = own.transposed().times(&sum);
        written += over.inner(&over) / squares;
    }
    (written / energy).sqrt()
}

/// ‖PᵀQ‖² / min(ranks) of the row spaces, by Gram-Schmidt, twice for good measure.
fn overlap(a: &Dense, b: &Dense) -> f64 {
    let (a, b) = (rows_basis(a), rows_basis(b));
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let shared: f64 = a.iter().flat_map(|x| b.iter().map(move |y| dot(x, y).powi(2))).sum();
    shared / a.len().min(b.len()) as f64
}

fn rows_basis(matrix: &Dense) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    for row in matrix.values.chunks(matrix.columns) {
        let mut rest = row.to_vec();
        for _ in 0..2 {
            for known in &basis {
                let share = dot(&rest, known);
                rest.iter_mut().zip(known).for_each(|(value, known)| *value -= share * known);
            }
        }
        let norm = dot(&rest, &rest).sqrt();
        if norm > 1e-9 * matrix.largest() {
            basis.push(rest.iter().map(|value| value / norm).collect());
        }
    }
    basis
}

#[test]
fn subspaces_that_are_known() {
    let workshop = Workshop::new();
    // Rank 2 each on axes of their own: outputs 0, 1 against 1, 2; inputs 0, 1 against 0, 1.
    let axes = |name: &str, outputs: [usize; 2]| {
        let mut up = vec![0.0; 8];
        up[outputs[0] * 2] = 1.0;
        up[outputs[1] * 2 + 1] = 3.0;
        let down = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0];
        Peft::new(2, 2.0).linear(Q, 2, &down, &up).save(&workshop.path(name))
    };
    let (a, b) = (axes("a", [0, 1]), axes("b", [1, 2]));
    let report = json_of("compare", &[&a, &b], "");
    let pair = &report["pairs"][0];
    near(&pair["output_overlap"], 0.5, 1e-12);
    near(&pair["input_overlap"], 1.0, 1e-12);
    near(&pair["cosine"], 0.0, 1e-12);
    near(&pair["norm_ratio"], 1.0, 1e-12);
}

/// A rank-1 pair whose signs conflict at exactly a quarter of all elements.
#[test]
fn sign_conflicts_are_sampled_by_the_seed() {
    let workshop = Workshop::new();
    let write = |name: &str, signs: &dyn Fn(usize) -> f32| {
        let up: Vec<f32> = (0..64).map(signs).collect();
        Peft::new(1, 1.0).linear(Q, 1, &[1.0; 64], &up).save(&workshop.path(name))
    };
    let a = write("a", &|_| 1.0);
    let b = write("b", &|row| if row % 4 == 0 { -1.0 } else { 1.0 });
    let conflict = |seed: u64| {
        let report = json_of("compare", &[&a, &b], &format!("--seed {seed}"));
        report["pairs"][0]["sign_conflict"].as_f64().expect("a number")
    };
    let found: Vec<f64> = (0..5).map(conflict).collect();
    for value in &found {
        // 200 000 samples of a quarter: five standard errors.
        assert!((value - 0.25).abs() < 5.0 * (0.25f64 * 0.75 / 200_000.0).sqrt(), "{value}");
    }
    assert!(found.iter().any(|value| *value != found[0]), "the seed chooses nothing: {found:?}");
    assert_eq!(conflict(3), found[3]);
    let threads = |count: usize| json_of("compare", &[&a, &b], &format!("--threads {count}"));
    assert_eq!(threads(1), threads(8));
}

#[test]
fn advice_names_its_rule() {
    let workshop = Workshop::new();
    let mut random = Random::new(1);
    let (down, up) = (random.values(40 * 2, 1.0), random.values(40 * 2, 1.0));
    let write = |name: &str, down: &[f32], up: &[f32]| {
        Peft::new(2, 2.0).linear(Q, 2, down, up).save(&workshop.path(name))
    };
    let times = |factor: f32| up.iter().map(|value| value * factor).collect::<Vec<_>>();
    let half = |values: &[f32], first: bool| {
        let keep = |at: usize| ((at % 40) < 20) == first;
        values.iter().enumerate().map(|(at, v)| if keep(at) { *v } else { 0.0 }).collect::<Vec<_>>()
    };
    let a = write("a", &down, &up);
    let b = write("b", &down, &times(1.5));
    let minus = write("minus", &down, &times(-1.0));
    // Disjoint inputs and disjoint outputs: `up` is 40 rows of 2, so its first half is 20 rows.
    let rows = |first: bool| {
        let keep = |at: usize| (at < 40) == first;
        up.iter().enumerate().map(|(at, v)| if keep(at) { *v } else { 0.0 }).collect::<Vec<_>>()
    };
    let left = write("left", &half(&down, true), &rows(true));
    let right = write("right", &half(&down, false), &rows(false));
    // The same inputs, other outputs: an overlap on one side only.
    let below = write("below", &down, &rows(false));
    let above = write("above", &down, &rows(true));
    // The second half of the outputs, and a little against the first.
    let against = |at: usize| if at < 40 { -0.3 } else { 1.0 };
    let faint: Vec<f32> = up.iter().enumerate().map(|(at, value)| value * against(at)).collect();
    let faint = write("faint", &down, &faint);
    let strange = Peft::new(2, 2.0).linear(K, 2, &down, &up).save(&workshop.path("strange"));
    for (x, y, flags, rule, method) in [
        (&a, &b, "", "cosine > 0.3", json!("linear")),
        (&a, &minus, "", "4 adapters or more, or spill > 35 %", json!("df-regmean")),
        (&above, &faint, "", "spill ≥ 5 %", json!("df-regmean")),
        (&left, &right, "", "spill < 5 %", json!("linear")),
        // The same inputs, other outputs: nothing is written over.
        (&above, &below, "", "spill < 5 %", json!("linear")),
        (&a, &strange, "", "no shared module", Value::Null),
    ] {
        let report = json_of("compare", &[x, y], flags);
        let advice = &report["advice"];
        assert_eq!(advice["rule"], rule, "{} {} {flags}", x.display(), y.display());
        assert_eq!(advice["method"], method);
        assert!(!advice["text"].as_str().expect("text").is_empty());
    }
}

#[test]
fn spectra_are_those_of_the_dense_matrices() {
    let workshop = Workshop::new();
    let how = How { alpha: -3.0, ..How::default() };
    let a = workshop.peft("a", 4, &[(Q, 20, 30, 3), (K, 6, 5, 9)], how);
    let report = json_of("inspect", &[&a], "--spectrum");
    let modules = report["items"][0]["modules"].as_array().expect("a list").clone();
    assert_eq!(modules.len(), 2);
    let dense = deltas(&a);
    for module in modules {
        let delta = &dense[module["name"].as_str().expect("a name")];
        let values = delta.singular_values();
        near(&module["norm"], delta.norm(), 1e-9);
        let found = module["singular_values"].as_array().expect("a list");
        assert_eq!(found.len() as u64, module["rank"].as_u64().expect("a rank").min(5));
        for (found, expected) in found.iter().zip(&values) {
            near(found, *expected, 1e-9);
        }
        let (sum, squares): (f64, f64) = (values.iter().sum(), values.iter().map(|v| v * v).sum());
        near(&module["stable_rank"], squares / values[0].powi(2), 1e-9);
        let entropy: f64 =
            values.iter().filter(|v| **v > 1e-9 * sum).map(|v| -(v / sum) * (v / sum).ln()).sum();
        near(&module["effective_rank"], entropy.exp(), 1e-6);
        for percent in [90, 95, 99] {
            let reaches = |k: &usize| {
                values[..*k].iter().map(|v| v * v).sum::<f64>()
                    >= f64::from(percent) / 100.0 * squares
            };
            let expected = (1..=values.len()).find(reaches);
            assert_eq!(module[format!("rank_{percent}")], json!(expected), "{percent} %");
        }
    }
    // Without the flag no factor is read, and nothing is said of it.
    let plain = json_of("inspect", &[&a], "");
    for field in ["norm", "singular_values", "effective_rank", "stable_rank"] {
        assert_eq!(plain["items"][0]["modules"][0].get(field), None, "{field}");
    }
}

/// No number stands where nothing was measured.
#[test]
fn a_pair_without_a_common_module_has_no_measures() {
    let workshop = Workshop::new();
    let a = workshop.peft("a", 1, &[(Q, 6, 5, 2)], How::default());
    let b = workshop.peft("b", 2, &[(K, 6, 5, 2)], How::default());
    let done = lora_tool().arg("compare").args([&a, &b]).output().expect("it runs");
    let text = String::from_utf8_lossy(&done.stdout);
    let row = text.lines().find(|line| line.contains("a / b")).expect("the pair's row");
    let cells: Vec<&str> = row.split_whitespace().skip(3).collect();
    assert_eq!(cells, ["0", "-", "-", "-", "-", "-"], "{text}");
}
