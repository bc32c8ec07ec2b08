//! PEFT's types with factors, kept apart, shared or made of pieces.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use super::case::{Case, config, dense, loha, lokr_part, pair};
use crate::common::dense::{Dense, deltas};
use crate::common::formulas::{diagonal, kronecker};
use crate::common::{Bench, lora_tool};
use serde_json::json;

#[test]
fn adalora_keeps_its_first_rank() {
    let fields = json!({"init_r": 12, "lora_alpha": 5, "rank_pattern": {"x": [true, false]}});
    let mut case = Case::peft(13, config("ADALORA", fields));
    let down = case.tensor("lora_A", &[3, 10], 0.5);
    let up = case.tensor("lora_B", &[8, 3], 0.5);
    let values = case.tensor("lora_E", &[3, 1], 2.0);
    let scale = 5.0 / (12.0 + 1e-5);
    let delta = up.times(&diagonal(&values.values)).times(&down).scaled(scale);
    case.check(&[8, 10], false, &|w| w.plus(&delta));
    case.check(&[10, 8], true, &|w| w.plus(&delta));
}

#[test]
fn vera_takes_as_much_of_its_projections_as_it_needs() {
    let mut case = Case::peft(14, config("VERA", json!({"r": 3})));
    let outputs = case.tensor("vera_lambda_b", &[8], 1.0);
    let inner = case.tensor("vera_lambda_d", &[3], 1.0);
    let (module, shared) = (case.prefix, "base_model");
    case.prefix = shared;
    let a = case.tensor("vera_A", &[3, 12], 0.5);
    let b = case.tensor("vera_B", &[9, 3], 0.5);
    case.prefix = module;
    let cut = |m: &Dense, rows: usize, columns: usize| {
        let at = |row| (0..columns).map(move |column| (row, column));
        let values = (0..rows).flat_map(at).map(|(row, column)| m.at(row, column));
        Dense::new(rows, columns, values.collect())
    };
    let up = diagonal(&outputs.values).times(&cut(&b, 8, 3));
    let delta = up.times(&diagonal(&inner.values)).times(&cut(&a, 3, 10));
    case.check(&[8, 10], false, &|w| w.plus(&delta));
}

#[test]
fn delora_has_levels_of_length_one() {
    let mut case = Case::peft(31, config("DELORA", json!({"r": 3, "delora_lambda": 9})));
    let down = case.tensor("delora_A", &[3, 10], 0.5);
    let up = case.tensor("delora_B", &[8, 3], 0.5);
    let lambda = case.add("delora_lambda", &[1], &[7.0]).values[0];
    let norms = case.tensor("delora_w_norm", &[10], 1.0).values;
    let length = |values: Vec<f64>| values.iter().map(|v| v * v).sum::<f64>().sqrt();
    let level = |at: usize| {
        let (row, column) = ((0..10).map(|j| down.at(at, j)), (0..8).map(|i| up.at(i, at)));
        lambda / 3.0 / (length(row.collect()) * length(column.collect()))
    };
    let delta = dense(8, 10, &|i, j| {
        (0..3).map(|at| up.at(i, at) * level(at) * down.at(at, j)).sum::<f64>() * norms[j]
    });
    case.check(&[8, 10], false, &|w| w.plus(&delta));
    case.check(&[10, 8], true, &|w| w.plus(&delta));
}

#[test]
fn gralora_has_factors_for_every_block() {
    for plain in [0, 2] {
        let fields = json!({"r": 4, "alpha": 5, "gralora_k": 2, "hybrid_r": plain});
        let mut case = Case::peft(32, config("GRALORA", fields));
        // Two parts of five inputs, two of four outputs, two levels of the four for each block.
        let down = case.tensor("gralora_A", &[2, 5, 4], 0.5).values;
        let up = case.tensor("gralora_B", &[2, 4, 4], 0.5).values;
        let mut delta = dense(8, 10, &|i, j| {
            let (g, n) = (i / 4, j / 5);
            let of_a = |s: usize| down[(n * 5 + j % 5) * 4 + g * 2 + s];
            let of_b = |s: usize| up[(g * 4 + n * 2 + s) * 4 + i % 4];
            (0..2).map(|s| of_a(s) * of_b(s)).sum()
        });
        if plain > 0 {
            let names = ["gralora_B_general.weight", "gralora_A_general.weight"];
            delta = delta.plus(&pair(&mut case, names, (8, plain, 10)));
        }
        let delta = delta.scaled(5.0 / (4 + plain) as f64);
        case.check(&[8, 10], false, &|w| w.plus(&delta));
    }
}

#[test]
fn vblora_mixes_vectors_of_its_bank() {
    let fields = json!({"r": 2, "num_vectors": 6, "vector_length": 4, "topk": 2});
    let mut case = Case::peft(33, config("VBLORA", fields));
    let down = case.tensor("vblora_logits_A", &[2, 3, 6], 2.0).values;
    let up = case.tensor("vblora_logits_B", &[2, 2, 6], 2.0).values;
    let module = case.prefix;
    case.prefix = "base_model";
    let bank = case.tensor("vblora_vector_bank", &[6, 4], 0.5);
    case.prefix = module;
    // The two largest of six logits, and their softmax.
    let mixed = |logits: &[f64], at: usize| {
        let mut order: Vec<usize> = (0..6).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let (first, second) = (logits[order[0]].exp(), logits[order[1]].exp());
        (first * bank.at(order[0], at) + second * bank.at(order[1], at)) / (first + second)
    };
    let of_a = |level: usize, j: usize| mixed(&down[(level * 3 + j / 4) * 6..][..6], j % 4);
    let of_b = |i: usize, level: usize| mixed(&up[(i / 4 * 2 + level) * 6..][..6], i % 4);
    let delta = dense(8, 12, &|i, j| (0..2).map(|level| of_b(i, level) * of_a(level, j)).sum());
    case.check(&[8, 12], false, &|w| w.plus(&delta));
}

#[test]
fn randlora_sums_over_shared_bases() {
    for (outputs, inputs) in [(8, 5), (5, 8), (5, 5)] {
        let mut case = Case::peft(34, config("RANDLORA", json!({"r": 2, "randlora_alpha": 6})));
        let lambda = case.tensor("randlora_lambda", &[2, 3], 0.5);
        let gamma = case.tensor("randlora_gamma", &[3, 5], 0.5);
        let module = case.prefix;
        case.prefix = "base_model";
        let small = case.tensor("randlora_A", &[2, 1, 6], 0.5);
        let large = case.tensor("randlora_B", &[9, 4, 2], 0.5);
        case.prefix = module;
        // PEFT writes a copy beside every module.
        let copied: Vec<f32> = small.values.iter().map(|value| *value as f32).collect();
        case.add("randlora_A", &[2, 1, 6], &copied);
        // Level c of A is (c / 3, c mod 3) of (k, b), of B it is (c mod 2, c / 2).
        let high = outputs.max(inputs);
        let tall = dense(high, 5, &|row, column| {
            let narrow = |c: usize| lambda.at(c / 3, c % 3) * gamma.at(c % 3, column);
            (0..6).map(|c| large.at(row, c) * narrow(c) * small.at(c / 3, column)).sum()
        });
        let delta = if inputs == 5 { tall } else { tall.transposed() }.scaled(3.0);
        case.check(&[outputs, inputs], false, &|w| w.plus(&delta));
    }
}

#[test]
fn miss_repeats_its_block() {
    for mini in [false, true] {
        let variant = if mini { json!("mini") } else { json!(true) };
        let mut case = Case::peft(15, config("MISS", json!({"r": 4, "init_weights": variant})));
        let width = if mini { 4 } else { 8 };
        let block = case.tensor("miss_block", &[4, width], 0.5);
        let mut delta = Dense::zeros(8, 10);
        for output in 0..8 {
            for input in 0..10 {
                delta.values[output * 10 + input] = block.at(input % 4, output % width);
            }
        }
        case.check(&[8, 10], false, &|w| w.plus(&delta));
    }
}

#[test]
fn sums_with_factors_become_lora_exactly() {
    for lokr in [false, true] {
        let bench = Bench::new();
        let mut case = Case::kohya(32);
        case.add("alpha", &[], &[3.0]);
        let delta = if lokr {
            let a = lokr_part(&mut case, 1, 0, (3, 4));
            kronecker(&a, &lokr_part(&mut case, 2, 2, (5, 6))).scaled(3.0 / 2.0)
        } else {
            loha(&mut case, (15, 2, 24)).scaled(3.0 / 2.0)
        };
        let (adapter, out) = (case.save(&bench), bench.path("lora.safetensors"));
        let mut command = lora_tool();
        command.arg("combine").arg(&adapter).arg("-w=0.5").arg("-o").arg(&out).assert().success();
        let made = deltas(&out).remove("lora_unet_layer").expect("the module");
        let off = made.minus(&delta.scaled(0.5)).norm() / delta.norm();
        assert!(off < 1e-6, "{off}");
    }
}

#[test]
fn a_peft_type_with_factors_becomes_a_lora_of_peft() {
    let bench = Bench::new();
    let fields = json!({
        "r": 2, "alpha": 3, "module_dropout": 0.1, "init_weights": true, "target_modules": ["layer"],
    });
    let mut case = Case::peft(39, config("LOHA", fields));
    let delta = loha(&mut case, (15, 2, 24)).scaled(3.0 / 2.0);
    let (adapter, out) = (case.save(&bench), bench.path("lora"));
    lora_tool().arg("combine").arg(&adapter).arg("-o").arg(&out).assert().success();
    let written = crate::common::dense::config(&out);
    assert_eq!(written["peft_type"], "LORA");
    for field in ["alpha", "module_dropout", "init_weights"] {
        assert!(!written.contains_key(field), "{field}");
    }
    let made = deltas(&out).remove("layer").expect("the module");
    assert!(made.minus(&delta).norm() < 1e-6 * delta.norm());
}
