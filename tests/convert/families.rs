//! Every family's formula: merged tensors against plain dense matrices in f64, on bases stored either
//! way round, whole and in part.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use crate::common::dense::{Dense, deltas};
use crate::common::formulas::{
    block_diagonal, blocks, decomposed, diagonal, hadamard, identity, kronecker, permutation,
    rotation, skew, skew_of, tucker,
};
use crate::common::{Bench, Random, Tally, Tensors, lora_tool, read};
use lora_tool::format::Dtype;
use serde_json::{Map, Value, json};

/// One adapter of one module, and what it makes of a weight.
pub(super) struct Case<'a> {
    random: Random,
    pub(super) tensors: Tensors,
    /// A PEFT config; a single file if none.
    config: Option<Value>,
    pub(super) prefix: &'a str,
}

impl Case<'_> {
    fn kohya(seed: u64) -> Self {
        let tensors = Tensors::new();
        Self { random: Random::new(seed), tensors, config: None, prefix: "lora_unet_layer" }
    }

    pub(super) fn peft(seed: u64, config: Value) -> Self {
        let (random, tensors) = (Random::new(seed), Tensors::new());
        Self { random, tensors, config: Some(config), prefix: "base_model.model.layer" }
    }

    /// Adds a random tensor; as (first dimension) × (the others).
    pub(super) fn tensor(&mut self, part: &str, shape: &[usize], size: f32) -> Dense {
        let values = self.random.values(shape.iter().product(), size);
        self.add(part, shape, &values)
    }

    fn add(&mut self, part: &str, shape: &[usize], values: &[f32]) -> Dense {
        let name = format!("{}.{part}", self.prefix);
        self.tensors = std::mem::take(&mut self.tensors).f32(&name, shape, values);
        let rest = shape.get(1..).unwrap_or_default().iter().product();
        let values = values.iter().map(|value| f64::from(*value)).collect();
        Dense::new(shape.first().copied().unwrap_or(1), rest, values)
    }

    /// Merges at some weight, and holds the result to W + weight · (full(W) − W).
    pub(super) fn check(&self, shape: &[usize], turned: bool, full: &dyn Fn(&Dense) -> Dense) {
        for (dtype, weight) in [(Dtype::F32, 1.0), (Dtype::BF16, 0.7), (Dtype::F32, -0.5)] {
            let bench = Bench::new();
            let mut random = Random::new(99);
            let values = random.values(shape.iter().product(), 0.5);
            let bias = random.values(shape[usize::from(turned)], 0.5);
            let base = Tensors::new().float("layer.weight", dtype, shape, &values);
            let base = base.float("layer.bias", dtype, &[bias.len()], &bias);
            let base = base.save(&bench.path("model.safetensors"));
            let adapter = self.save(&bench);
            let out = bench.merge(&base, &[&adapter], &format!("-w={weight} --verify"));
            let (before, after) = (read(&base), read(&out));
            let stored =
                Dense::new(shape[0], shape[1..].iter().product(), before["layer.weight"].values());
            let turn = |m: &Dense| if turned { m.transposed() } else { m.clone() };
            let w = turn(&stored);
            let exact = w.plus(&full(&w).minus(&w).scaled(weight));
            let mut tally = Tally::default();
            tally.add("layer.weight", &after["layer.weight"], &turn(&exact).values);
            tally.check(&format!("{:?} at {weight} into {dtype}", self.tensors.entries[0].0));
        }
        self.check_as_lora(shape, turned, full);
    }

    /// Converts with `--as lora`: at full rank it merges as the adapter itself does, bias and all; at a rank it is as
    /// near as any matrix of that rank, and says how near.
    fn check_as_lora(&self, shape: &[usize], turned: bool, full: &dyn Fn(&Dense) -> Dense) {
        let bench = Bench::new();
        let mut random = Random::new(99);
        let values = random.values(shape.iter().product(), 0.5);
        let bias = random.values(shape[usize::from(turned)], 0.5);
        let base = Tensors::new().f32("layer.weight", shape, &values);
        let base =
            base.f32("layer.bias", &[bias.len()], &bias).save(&bench.path("model.safetensors"));
        let adapter = self.save(&bench);
        let merged = read(&bench.merge(&base, &[&adapter], ""));
        let size = (shape[0], shape[1..].iter().product());
        let turn = |m: &Dense| if turned { m.transposed() } else { m.clone() };
        let before = read(&base)["layer.weight"].values();
        let stored = Dense::new(size.0, size.1, before);
        let update = full(&turn(&stored)).minus(&turn(&stored));
        let sigma = update.singular_values();
        for rank in [1, 2, 1000] {
            let ending = if self.config.is_some() { "" } else { ".safetensors" };
            let out = bench.path(&format!("lora{rank}{ending}"));
            let mut convert = lora_tool();
            convert.arg("convert").arg(&adapter).args(["--as", "lora", "--json", "--rank"]);
            convert.arg(rank.to_string()).arg("--reference").arg(&base).arg("-o").arg(&out);
            let done = convert.output().expect("runs");
            let label = format!("{:?} {shape:?} at {rank}", self.tensors.entries[0].0);
            let text = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{label}: {text}");
            let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
            let again = read(&bench.merge(&base, &[&out], ""));
            let after = Dense::new(size.0, size.1, again["layer.weight"].values());
            let off = turn(&after.minus(&stored)).minus(&update).norm() / update.norm();
            let tail: f64 = sigma.iter().skip(rank).map(|value| value * value).sum();
            let optimum = tail.sqrt() / update.norm();
            assert!(off <= optimum * 1.01 + 1e-5, "{label}: {off:e}, best {optimum:e}");
            let said = report["relative_error"].as_f64().expect("a number");
            let modules = report["modules"].as_array().expect("a list");
            let of_factors = !modules.is_empty();
            assert!(
                !of_factors || (said - off).abs() <= 1e-5 + off * 0.01,
                "{label}: {said} {off}"
            );
            if rank == 1000 {
                for (name, tensor) in &merged {
                    let pairs = tensor.values().into_iter().zip(again[name].values());
                    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(worst <= 2e-5, "{label}: {name} {worst:e}");
                }
            }
        }
    }

    pub(super) fn save(&self, bench: &Bench) -> std::path::PathBuf {
        let Some(config) = &self.config else {
            return self.tensors.save(&bench.path("adapter.safetensors"));
        };
        let directory = bench.path("adapter");
        self.tensors.save(&directory.join("adapter_model.safetensors"));
        let text = serde_json::to_vec(config).expect("JSON");
        std::fs::write(directory.join("adapter_config.json"), text).expect("written");
        directory
    }
}

pub(super) fn config(peft_type: &str, fields: Value) -> Value {
    let mut config = Map::new();
    config.insert("peft_type".to_owned(), json!(peft_type));
    let Value::Object(fields) = fields else { unreachable!() };
    config.extend(fields);
    Value::Object(config)
}

#[test]
fn locon_with_a_core() {
    let mut case = Case::kohya(1);
    case.add("alpha", &[], &[3.0]);
    let down = case.tensor("lora_down.weight", &[4, 6, 1, 1], 0.5);
    let up = case.tensor("lora_up.weight", &[10, 4, 1, 1], 0.5);
    let core = case.tensor("lora_mid.weight", &[4, 4, 3, 3], 0.5);
    let delta = tucker(&core, &up.transposed(), &down).scaled(3.0 / 4.0);
    case.check(&[10, 6, 3, 3], false, &|w| w.plus(&delta));
}

/// Factors of rank r for out × in, and their product.
fn pair(
    case: &mut Case,
    names: [&str; 2],
    (outputs, rank, inputs): (usize, usize, usize),
) -> Dense {
    let up = case.tensor(names[0], &[outputs, rank], 0.5);
    up.times(&case.tensor(names[1], &[rank, inputs], 0.5))
}

fn loha(case: &mut Case, (outputs, rank, inputs): (usize, usize, usize)) -> Dense {
    let first = pair(case, ["hada_w1_a", "hada_w1_b"], (outputs, rank, inputs));
    hadamard(&first, &pair(case, ["hada_w2_a", "hada_w2_b"], (outputs, rank, inputs)))
}

#[test]
fn loha_small_large_and_flattened() {
    for rank in [2, 12] {
        let mut case = Case::kohya(2);
        case.add("alpha", &[], &[5.0]);
        let delta = loha(&mut case, (20, rank, 36)).scaled(5.0 / rank as f64);
        case.check(&[20, 36], false, &|w| w.plus(&delta));
        // A convolution's factors do not tell its kernel.
        case.check(&[20, 4, 3, 3], false, &|w| w.plus(&delta));
        case.check(&[36, 20], true, &|w| w.plus(&delta));
    }
}

#[test]
fn loha_with_cores() {
    let mut case = Case::kohya(3);
    let mut part = |number: usize| {
        let name = |end: &str| format!("hada_w{number}_{end}");
        let up = case.tensor(&name("a"), &[3, 10], 0.5);
        let down = case.tensor(&name("b"), &[3, 6], 0.5);
        let core = case.tensor(&format!("hada_t{number}"), &[3, 3, 2, 5], 0.5);
        tucker(&core, &up, &down)
    };
    // Without alpha the scale is 1.
    let delta = hadamard(&part(1), &part(2));
    case.check(&[10, 6, 2, 5], false, &|w| w.plus(&delta));
}

/// All ways to store one of LoKr's parts, of rows × columns.
fn lokr_part(case: &mut Case, number: usize, rank: usize, size: (usize, usize)) -> Dense {
    let name = format!("lokr_w{number}");
    match rank {
        0 => case.tensor(&name, &[size.0, size.1], 0.5),
        rank => {
            let names = [format!("{name}_a"), format!("{name}_b")];
            pair(case, [&names[0], &names[1]], (size.0, rank, size.1))
        }
    }
}

#[test]
fn lokr_in_all_forms() {
    for (first, second) in [(0, 0), (0, 3), (2, 0), (2, 3)] {
        let mut case = Case::kohya(4);
        case.add("alpha", &[], &[5.0]);
        let a = lokr_part(&mut case, 1, first, (4, 3));
        let b = lokr_part(&mut case, 2, second, (6, 10));
        // Where both are whole, alpha says nothing.
        let scale = match (first, second) {
            (0, 0) => 1.0,
            (first, 0) => 5.0 / first as f64,
            (_, second) => 5.0 / second as f64,
        };
        let delta = kronecker(&a, &b).scaled(scale);
        case.check(&[24, 30], false, &|w| w.plus(&delta));
        case.check(&[30, 24], true, &|w| w.plus(&delta));
        case.check(&[24, 5, 2, 3], false, &|w| w.plus(&delta));
    }
}

#[test]
fn lokr_by_config_and_too_large_for_the_kernel() {
    // PEFT divides by the config's rank even where both parts are whole.
    let mut case = Case::peft(5, config("LOKR", json!({"r": 8, "alpha": 3})));
    let a = lokr_part(&mut case, 1, 0, (9, 8));
    let b = lokr_part(&mut case, 2, 0, (20, 24));
    let delta = kronecker(&a, &b).scaled(3.0 / 8.0);
    case.check(&[180, 192], false, &|w| w.plus(&delta));
    case.check(&[192, 180], true, &|w| w.plus(&delta));
}

#[test]
fn lokr_of_convolutions() {
    let mut case = Case::kohya(6);
    case.add("alpha", &[], &[2.0]);
    let a = lokr_part(&mut case, 1, 0, (2, 3));
    let up = case.tensor("lokr_w2_a", &[2, 5], 0.5);
    let down = case.tensor("lokr_w2_b", &[2, 4], 0.5);
    let core = case.tensor("lokr_t2", &[2, 2, 3, 3], 0.5);
    let delta = kronecker(&a, &tucker(&core, &up, &down));
    case.check(&[10, 12, 3, 3], false, &|w| w.plus(&delta));

    let mut case = Case::kohya(7);
    let a = lokr_part(&mut case, 1, 0, (2, 3));
    let b = case.tensor("lokr_w2", &[5, 4, 3, 3], 0.5);
    case.check(&[10, 12, 3, 3], false, &|w| w.plus(&kronecker(&a, &b)));
}

#[test]
fn decompositions_of_either_side_over_any_sum() {
    let epsilon = f64::from(f32::EPSILON);
    for seed in 8..11 {
        for (shape, lengths, group) in [
            (vec![12, 10], vec![12, 1], None),
            (vec![12, 10], vec![1, 10], Some(1)),
            (vec![12, 5, 2, 1], vec![12, 1, 1, 1], None),
            (vec![12, 5, 2, 1], vec![1, 5, 1, 1], Some(2)),
        ] {
            let mut case = Case::kohya(seed);
            case.add("alpha", &[], &[3.0]);
            let delta = match seed {
                8 => {
                    let down = [vec![2], shape[1..].to_vec()].concat();
                    let down = case.tensor("lora_down.weight", &down, 0.5);
                    let ones = vec![1; shape.len() - 2];
                    let up = [vec![12, 2], ones].concat();
                    case.tensor("lora_up.weight", &up, 0.5).times(&down).scaled(3.0 / 2.0)
                }
                9 => loha(&mut case, (12, 3, 10)),
                _ => {
                    let a = lokr_part(&mut case, 1, 0, (3, 2));
                    kronecker(&a, &lokr_part(&mut case, 2, 1, (4, 5))).scaled(3.0)
                }
            };
            let lengths = case.tensor("dora_scale", &lengths, 1.0).values;
            case.check(&shape, false, &|w| decomposed(&w.plus(&delta), &lengths, group, epsilon));
        }
    }
}

#[test]
fn whole_differences_of_weights_biases_and_norms() {
    let mut case = Case::kohya(11);
    let delta = case.tensor("diff", &[6, 4, 3, 3], 0.5);
    case.check(&[6, 4, 3, 3], false, &|w| w.plus(&delta));

    let bench = Bench::new();
    let mut random = Random::new(12);
    let mut values = |count: usize| random.values(count, 0.5);
    let (weight, bias, norm) = (values(12), values(4), values(5));
    let base = Tensors::new()
        .f32("a.weight", &[4, 3], &weight)
        .f32("a.bias", &[4], &bias)
        .f32("norm.weight", &[5], &norm)
        .f32("norm.bias", &[5], &norm)
        .save(&bench.path("model.safetensors"));
    let adapter = Tensors::new()
        .f32("lora_unet_a.diff_b", &[4], &[1.0, 2.0, 3.0, 4.0])
        .f32("lora_unet_norm.w_norm", &[5], &[1.0; 5])
        .f32("lora_unet_norm.b_norm", &[5], &[2.0; 5])
        .save(&bench.path("adapter.safetensors"));
    let merged = read(&bench.merge(&base, &[&adapter], "-w 0.5 --verify"));
    let plus = |values: &[f32], by: &[f64]| -> Vec<f64> {
        values.iter().zip(by).map(|(v, by)| f64::from((f64::from(*v) + by) as f32)).collect()
    };
    assert_eq!(merged["a.weight"].values(), plus(&weight, &[0.0; 12]));
    assert_eq!(merged["a.bias"].values(), plus(&bias, &[0.5, 1.0, 1.5, 2.0]));
    assert_eq!(merged["norm.weight"].values(), plus(&norm, &[0.5; 5]));
    assert_eq!(merged["norm.bias"].values(), plus(&norm, &[1.0; 5]));
}

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

/// A dense matrix of these values, by row and column.
pub(super) fn dense(rows: usize, columns: usize, value: &dyn Fn(usize, usize) -> f64) -> Dense {
    let at = |row| (0..columns).map(move |column| value(row, column));
    Dense::new(rows, columns, (0..rows).flat_map(at).collect())
}

#[test]
fn what_goes_through_the_base_needs_it_to_be_a_lora() {
    let mut case = Case::peft(30, config("HRA", json!({"r": 2})));
    case.tensor("hra_u", &[10, 2], 0.5);
    let bench = Bench::new();
    let adapter = case.save(&bench);
    let mut convert = lora_tool();
    convert.arg("convert").arg(&adapter).args(["--as", "lora", "--rank", "2", "-o"]);
    let done = convert.arg(bench.path("out")).output().expect("runs");
    let text = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{text}");
    assert!(text.contains("as a LoRA they need the base"), "{text}");
    assert!(text.contains("give the model it was trained on: --reference BASE"), "{text}");
    assert!(!bench.path("out").exists(), "an output is left");
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
fn ia3_scales_either_side() {
    let fields = json!({"feedforward_modules": ["other"]});
    for (shape, outputs) in [(vec![8, 1], true), (vec![1, 10], false)] {
        let mut case = Case::peft(16, config("IA3", fields.clone()));
        let factors = diagonal(&case.tensor("ia3_l", &shape, 2.0).values);
        let full = |w: &Dense| if outputs { factors.times(w) } else { w.times(&factors) };
        case.check(&[8, 10], false, &full);
        case.check(&[10, 8], true, &full);
    }
    // Of a convolution the config says which side.
    for (side, count) in [("other", 8), ("layer", 5)] {
        let fields = json!({"feedforward_modules": [side]});
        let mut case = Case::peft(17, config("IA3", fields));
        let factors = case.tensor("ia3_l", &[1, count, 1, 1], 2.0);
        let full = |w: &Dense| match count {
            8 => diagonal(&factors.values).times(w),
            _ => w.times(&kronecker(&diagonal(&factors.values), &identity(6))),
        };
        case.check(&[8, 5, 2, 3], false, &full);
    }
    for on_input in [0.0, 1.0] {
        let mut case = Case::kohya(18);
        let count = if on_input == 0.0 { 8 } else { 10 };
        let factors = case.tensor("weight", &[count], 1.0);
        case.add("on_input", &[], &[on_input]);
        let factors: Vec<f64> = factors.values.iter().map(|value| 1.0 + value).collect();
        let factors = diagonal(&factors);
        let full = |w: &Dense| if count == 8 { factors.times(w) } else { w.times(&factors) };
        case.check(&[8, 10], false, &full);
    }
}

#[test]
fn ia3_scales_the_bias_with_the_outputs() {
    let bench = Bench::new();
    let mut case = Case::peft(19, config("IA3", json!({})));
    case.add("ia3_l", &[2, 1], &[2.0, 3.0]);
    let base = Tensors::new().f32("layer.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let base = base.f32("layer.bias", &[2], &[1.0, 2.0]).save(&bench.path("model.safetensors"));
    let merged = read(&bench.merge(&base, &[&case.save(&bench)], "-w 0.5 --verify"));
    assert_eq!(merged["layer.weight"].values(), [1.5, 3.0, 6.0, 8.0]);
    assert_eq!(merged["layer.bias"].values(), [1.5, 4.0]);
}

#[test]
fn oft_rotates_the_inputs() {
    let series = |q: &Dense| {
        let square = q.times(q);
        let one = identity(q.rows).plus(&q.scaled(2.0)).plus(&square.scaled(2.0));
        one.plus(&square.times(q).scaled(2.0)).plus(&square.times(&square))
    };
    for (neumann, shared, coft) in
        [(true, false, false), (false, false, false), (false, true, false), (false, false, true)]
    {
        let fields = json!({
            "r": 0, "oft_block_size": 4, "use_cayley_neumann": neumann, "block_share": shared,
            "coft": coft, "eps": 0.4, "num_cayley_neumann_terms": 5, "peft_version": "0.21.2",
        });
        let mut case = Case::peft(20, config("OFT", fields));
        let count = if shared { 1 } else { 3 };
        let stored = case.tensor("oft_R.weight", &[count, 6], 0.4);
        let turned = stored.values.chunks(6).map(|triangle| {
            let mut q = skew_of(triangle, 4);
            let bound = 0.4 / (count as f64).sqrt();
            if coft && q.norm() > bound {
                q = q.scaled(bound / q.norm());
            }
            if neumann { series(&q) } else { rotation(&q) }
        });
        let mut turned: Vec<Dense> = turned.collect();
        if shared {
            turned = vec![turned.remove(0); 3];
        }
        let r = block_diagonal(&turned);
        case.check(&[8, 12], false, &|w| w.times(&r.transposed()));
        // One block for all does not tell how many inputs there are.
        if !shared {
            case.check(&[12, 8], true, &|w| w.times(&r.transposed()));
        }
        case.check(&[8, 3, 2, 2], false, &|w| w.times(&r.transposed()));
    }
}

#[test]
fn boft_rotates_through_butterflies() {
    for stages in [1, 2, 3] {
        let mut case = Case::peft(21, config("BOFT", json!({"boft_block_size": 4})));
        let stored = case.tensor("boft_R", &[stages, 4, 4, 4], 0.4);
        let scales = case.tensor("boft_s", &[6, 1], 1.0);
        let mut m = identity(16);
        for (stage, own) in stored.values.chunks(4 * 16).enumerate() {
            let own = Dense::new(4, 16, own.to_vec());
            let turned: Vec<Dense> =
                blocks(&own, 4).iter().map(|block| rotation(&skew(block).scaled(0.5))).collect();
            // Halves of blocks, within groups of 2^stage blocks: even ones first.
            let group = 4 << stage;
            let from: Vec<usize> = (0..16)
                .map(|at| {
                    let (first, at) = (at / group * group, at % group);
                    let (half, halves) = (at / 2, group / 2);
                    let picked =
                        if half < halves / 2 { 2 * half } else { 2 * (half - halves / 2) + 1 };
                    first + picked * 2 + at % 2
                })
                .collect();
            let p = if stages == 1 { identity(16) } else { permutation(&from) };
            m = p.times(&block_diagonal(&turned)).times(&p.transposed()).times(&m);
        }
        let s = diagonal(&scales.values);
        case.check(&[6, 16], false, &|w| s.times(&m.times(&w.transposed()).transposed()));
        case.check(&[16, 6], true, &|w| s.times(&m.times(&w.transposed()).transposed()));
    }
}

#[test]
fn oft_blocks_rotate_the_outputs() {
    for (prefix, alpha) in [
        ("lora_unet_layer", None),
        ("lora_unet_layer", Some(0.0)),
        ("lora_unet_layer", Some(0.02)),
        ("oft_unet_layer", Some(0.02)),
        ("oft_unet_layer", Some(10.0)),
    ] {
        let mut case = Case::kohya(22);
        case.prefix = prefix;
        let stored = case.tensor("oft_blocks", &[3, 4, 4], 0.4);
        let scales = case.tensor("rescale", &[12, 1, 1], 1.0);
        let q: Vec<Dense> = blocks(&stored, 4).iter().map(skew).collect();
        let norm = q.iter().map(|q| q.inner(q)).sum::<f64>().sqrt();
        let factor = match alpha {
            Some(alpha) if alpha > 0.0 => (alpha * 12.0 / norm).min(1.0),
            _ => 1.0,
        };
        if let Some(alpha) = alpha {
            case.add("alpha", &[], &[alpha as f32]);
        }
        // R = (I + Q)·(I − Q)⁻¹, each block of outputs by Rᵀ.
        let turned: Vec<Dense> =
            q.iter().map(|q| rotation(&q.scaled(-factor)).transposed()).collect();
        let r = diagonal(&scales.values).times(&block_diagonal(&turned));
        case.check(&[12, 5, 3], false, &|w| r.times(w));
    }
}

#[test]
fn butterflies_of_oft_blocks() {
    let mut case = Case::kohya(23);
    let stored = case.tensor("oft_blocks", &[3, 4, 4, 4], 0.4);
    let mut l = identity(16);
    for (stage, own) in stored.values.chunks(4 * 16).enumerate() {
        let own = Dense::new(4, 16, own.to_vec());
        let turned: Vec<Dense> =
            blocks(&own, 4).iter().map(|block| rotation(&skew(block).scaled(-1.0))).collect();
        // (c, g, k) → (c, k, g) with g = 2 and k = 2^stage · 2.
        let k = 2 << stage;
        let mut from = Vec::new();
        for c in 0..16 / (2 * k) {
            for at in 0..k {
                from.extend((0..2).map(|g| (c * 2 + g) * k + at));
            }
        }
        let p = permutation(&from);
        l = p.transposed().times(&block_diagonal(&turned)).times(&p).times(&l);
    }
    case.check(&[16, 7], false, &|w| l.times(w));
}

#[test]
fn hra_reflects_the_inputs() {
    for orthogonal in [false, true] {
        let mut case = Case::peft(24, config("HRA", json!({"r": 3, "apply_GS": orthogonal})));
        let u = case.tensor("hra_u", &[10, 3], 1.0);
        let mut m = identity(10);
        let mut before: Vec<Dense> = Vec::new();
        for at in 0..3 {
            let mut own = Dense::new(10, 1, (0..10).map(|row| u.at(row, at)).collect());
            for other in before.iter().filter(|_| orthogonal) {
                own = own.minus(&other.scaled(own.inner(other)));
            }
            own = own.scaled(1.0 / own.norm());
            m = m.minus(&m.times(&own).times(&own.transposed()).scaled(2.0));
            before.push(own);
        }
        case.check(&[8, 10], false, &|w| w.times(&m));
        case.check(&[10, 8], true, &|w| w.times(&m));
    }
}

#[test]
fn hira_and_glora() {
    let mut case = Case::peft(25, config("HIRA", json!({"r": 2})));
    let down = case.tensor("hira_A", &[2, 10], 0.5);
    let gate = case.tensor("hira_B", &[8, 2], 0.5).times(&down);
    case.check(&[8, 10], false, &|w| w.plus(&hadamard(w, &gate)));
    case.check(&[10, 8], true, &|w| w.plus(&hadamard(w, &gate)));

    for old in [false, true] {
        let mut case = Case::kohya(26);
        case.add("alpha", &[], &[3.0]);
        let names = if old { ["a2", "a1", "b2", "b1"] } else { ["a1", "a2", "b1", "b2"] };
        let mut tensor =
            |at: usize, shape: &[usize]| case.tensor(&format!("{}.weight", names[at]), shape, 0.5);
        let over = tensor(0, &[10, 2]).times(&tensor(1, &[2, 10]));
        let plus = tensor(2, &[8, 2]).times(&tensor(3, &[2, 10]));
        case.check(&[8, 10], false, &|w| w.plus(&w.times(&over).plus(&plus).scaled(3.0 / 2.0)));
    }
    let mut case = Case::kohya(27);
    let mut tensor = |name: &str, shape: &[usize]| case.tensor(name, shape, 0.5);
    let over = tensor("a1.weight", &[5, 2, 1, 1]).times(&tensor("a2.weight", &[2, 5, 1, 1]));
    let plus = tensor("b1.weight", &[8, 2, 1, 1]).times(&tensor("b2.weight", &[2, 5, 2, 3]));
    let over = kronecker(&over, &identity(6));
    case.check(&[8, 5, 2, 3], false, &|w| w.plus(&w.times(&over).plus(&plus)));
}

/// Large enough for several panels: rows made on demand, mixed outputs, lengths of columns.
#[test]
fn threads_and_ways_to_read_do_not_change_a_byte() {
    let (bench, mut random) = (Bench::new(), Random::new(31));
    let (rows, columns) = (704, 900);
    let (mut base, mut adapter) = (Tensors::new(), Tensors::new());
    for module in ["composite", "whole", "mixed", "lengths"] {
        let values = random.values(rows * columns, 0.05);
        base = base.f32(&format!("{module}.weight"), &[rows, columns], &values);
        let mut add = |part: &str, shape: &[usize]| {
            let values = random.values(shape.iter().product(), 0.1);
            let name = format!("lora_unet_{module}.{part}");
            adapter = std::mem::take(&mut adapter).f32(&name, shape, &values);
        };
        match module {
            "whole" => add("diff", &[rows, columns]),
            "mixed" => add("oft_blocks", &[3, 44, 16, 16]),
            _ => {
                add("lokr_w1", &[4, 9]);
                add("lokr_w2", &[176, 100]);
            }
        }
        if module == "lengths" {
            add("dora_scale", &[1, columns]);
        }
    }
    let base = base.save(&bench.path("model.safetensors"));
    let adapter = adapter.save(&bench.path("adapter.safetensors"));
    let merge = |options: &str| {
        let out = bench.merge(&base, &[&adapter], &format!("{options} --dtype bf16"));
        std::fs::read(out.join("model.safetensors")).expect("written")
    };
    let first = merge("--threads 1 --verify");
    for options in ["", "--threads 3", "--no-mmap"] {
        assert!(merge(options) == first, "`{options}` changes the output");
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

#[test]
fn what_does_not_add_up_is_refused_by_name() {
    let cases: [(&str, &[usize], &str, &str); 3] = [
        ("oft_blocks", &[2, 4, 4], "diag-oft", "depend on the base"),
        ("hra_u", &[10, 2], "hra", "depend on the base"),
        ("miss_block", &[4, 8], "miss", "do not tell the weight's shape"),
    ];
    for (part, shape, family, reason) in cases {
        let peft = part == "hra_u" || part == "miss_block";
        let config = config(if part == "hra_u" { "HRA" } else { "MISS" }, json!({}));
        let mut case = if peft { Case::peft(33, config) } else { Case::kohya(33) };
        case.tensor(part, shape, 0.5);
        let bench = Bench::new();
        let adapter = case.save(&bench);
        let out = if peft { "out" } else { "out.safetensors" };
        for verb in ["combine", "resize"] {
            let mut command = lora_tool();
            command.arg(verb).arg(&adapter).arg("-o").arg(bench.path(out));
            if verb == "resize" {
                command.args(["--rank", "2"]);
            }
            let said = command.assert().code(2).get_output().stderr.clone();
            let said = String::from_utf8_lossy(&said);
            for expected in [family, reason, "lora-tool merge"] {
                assert!(said.contains(expected), "{part}: {expected} not in {said}");
            }
        }
        let mut command = lora_tool();
        let shown = command.args(["inspect", "--json"]).arg(&adapter).assert().success();
        let shown: Value = serde_json::from_slice(&shown.get_output().stdout).expect("JSON");
        assert_eq!(shown["items"][0]["modules"][0]["family"], family);
    }
}

#[test]
fn tensors_that_belong_to_no_family_are_faults() {
    let mut stray = Case::kohya(34);
    loha(&mut stray, (4, 2, 6));
    stray.tensor("oft_blocks", &[2, 2, 2], 0.5);
    let mut shape = Case::kohya(35);
    shape.tensor("lokr_w1", &[2, 2], 0.5);
    shape.tensor("lokr_w2_a", &[2, 2], 0.5);
    shape.tensor("lokr_w2_b", &[3, 3], 0.5);
    let mut bat = Case::peft(36, config("MISS", json!({"init_weights": "bat"})));
    bat.tensor("miss_block", &[2, 2, 2], 0.5);
    let mut unsaved = Case::peft(37, config("VERA", json!({"save_projection": false})));
    unsaved.tensor("vera_lambda_b", &[4], 0.5);
    unsaved.tensor("vera_lambda_d", &[2], 0.5);
    let mut old = Case::peft(38, config("OFT", json!({"r": 2})));
    old.tensor("oft_R.weight", &[2, 3], 0.5);
    for (case, expected) in [
        (stray, "has no such tensor"),
        (shape, "[2, 3]"),
        (bat, "MiSS (bat)"),
        (unsaved, "save_projection"),
        (old, "another one"),
    ] {
        let bench = Bench::new();
        let base = Tensors::new().f32("layer.weight", &[4, 6], &[0.5; 24]);
        let base = base.save(&bench.path("model.safetensors"));
        let said = bench.refuse(&base, &[&case.save(&bench)], "");
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn types_without_weights_are_shown_with_a_warning() {
    let bench = Bench::new();
    let mut case = Case::peft(40, config("PROMPT_TUNING", json!({})));
    case.prefix = "prompt_embeddings";
    case.tensor("weight", &[4, 8], 0.5);
    let adapter = case.save(&bench);
    let shown = lora_tool().args(["inspect", "--json"]).arg(&adapter).assert().success();
    let shown: Value = serde_json::from_slice(&shown.get_output().stdout).expect("JSON");
    let item = &shown["items"][0];
    assert_eq!(item["modules"], json!([]));
    let warning = item["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("PROMPT_TUNING") && warning.contains("virtual tokens"), "{warning}");
    lora_tool().arg("inspect").arg(&adapter).assert().success();
}
