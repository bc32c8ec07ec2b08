//! Updates that lie in a part of a tensor, or over several: against plain f64 loops over the same
//! factors, put in place by hand.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::PathBuf;

use crate::common::dense::Dense;
use crate::common::{Bench, Peft, Random, Tensors, product, read};

const RANK: usize = 2;

/// Random factors of a module, and their product.
struct Update {
    down: Vec<f32>,
    up: Vec<f32>,
    delta: Dense,
}

fn update(random: &mut Random, outputs: usize, inputs: usize) -> Update {
    let (down, up) = (random.values(RANK * inputs, 1.0), random.values(outputs * RANK, 1.0));
    let delta = Dense::new(outputs, inputs, product(&up, &down, RANK));
    Update { down, up, delta }
}

struct Case {
    bench: Bench,
    base: Tensors,
    adapter: Tensors,
    before: Vec<(String, Vec<usize>, Vec<f32>)>,
    random: Random,
}

impl Case {
    fn new() -> Self {
        let (base, adapter) = (Tensors::new(), Tensors::new());
        Self { bench: Bench::new(), base, adapter, before: Vec::new(), random: Random::new(7) }
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) {
        let values = self.random.values(shape.iter().product(), 1.0);
        self.base = std::mem::replace(&mut self.base, Tensors::new()).f32(name, shape, &values);
        self.before.push((name.to_owned(), shape.to_vec(), values));
    }

    /// Adds a module in kohya's convention, scale 1.
    fn module(&mut self, name: &str, outputs: usize, inputs: usize) -> Dense {
        let made = update(&mut self.random, outputs, inputs);
        self.adapter = std::mem::replace(&mut self.adapter, Tensors::new())
            .f32(&format!("{name}.lora_down.weight"), &[RANK, inputs], &made.down)
            .f32(&format!("{name}.lora_up.weight"), &[outputs, RANK], &made.up);
        made.delta
    }

    fn files(&self) -> (PathBuf, PathBuf) {
        let base = self.base.save(&self.bench.path("base.safetensors"));
        (base, self.adapter.save(&self.bench.path("adapter.safetensors")))
    }

    /// Merges, verifies, and holds every tensor to base + `delta(tensor, index)`.
    fn check(&self, delta: impl Fn(&str, usize) -> f64) {
        let (base, adapter) = self.files();
        let merged = read(&self.bench.merge(&base, &[&adapter], "--verify --threads 3"));
        for (name, shape, values) in &self.before {
            let found = &merged[name];
            assert_eq!(&found.shape, shape);
            for (at, (got, before)) in found.values().iter().zip(values).enumerate() {
                let exact = f64::from(*before) + delta(name, at);
                let near = (got - exact).abs() <= 1e-6 * exact.abs().max(1.0);
                assert!(near, "{name} at {at}: {got}, expected {exact}");
                let untouched = delta(name, at) == 0.0;
                assert!(!untouched || *got == f64::from(*before), "{name} at {at} changed");
            }
        }
    }
}

#[test]
fn split_projections_land_in_the_rows_of_a_fused_one() {
    let mut case = Case::new();
    case.tensor("double_blocks.0.img_attn.qkv.weight", &[12, 5]);
    case.tensor("single_blocks.0.linear1.weight", &[28, 5]);
    case.tensor("final_layer.adaLN_modulation.1.weight", &[8, 5]);
    let k = case.module("lora_unet_transformer_blocks_0_attn_to_k", 4, 5);
    let v = case.module("lora_unet_transformer_blocks_0_attn_to_v", 4, 5);
    let mlp = case.module("lora_unet_single_transformer_blocks_0_proj_mlp", 16, 5);
    let swapped = case.module("lora_unet_norm_out_linear", 8, 5);
    case.check(|name, at| {
        let (row, column) = (at / 5, at % 5);
        match (name.split('.').next().expect("a part"), row) {
            ("double_blocks", 4..8) => k.at(row - 4, column),
            ("double_blocks", 8..) => v.at(row - 8, column),
            ("single_blocks", 12..) => mlp.at(row - 12, column),
            ("final_layer", _) => swapped.at((row + 4) % 8, column),
            _ => 0.0,
        }
    });
}

#[test]
fn a_fused_projection_is_shared_out_among_split_ones() {
    let mut case = Case::new();
    for (name, size) in [("q", 4), ("k", 2), ("v", 2)] {
        case.tensor(&format!("model.layers.0.self_attn.{name}_proj.weight"), &[size, 5]);
    }
    let fused = case.module("model.layers.0.self_attn.qkv_proj", 8, 5);
    case.check(|name, at| {
        let first = match name {
            name if name.contains("q_proj") => 0,
            name if name.contains("k_proj") => 4,
            _ => 6,
        };
        fused.at(first + at / 5, at % 5)
    });
}

#[test]
fn grouped_queries_take_the_rows_that_are_theirs() {
    let mut case = Case::new();
    case.tensor("model.layers.0.self_attn.qkv_proj.weight", &[8, 5]);
    let (q, v) = (
        case.module("model.layers.0.self_attn.q_proj", 4, 5),
        case.module("model.layers.0.self_attn.v_proj", 2, 5),
    );
    case.check(|_, at| match at / 5 {
        row @ 0..4 => q.at(row, at % 5),
        row @ 6.. => v.at(row - 6, at % 5),
        _ => 0.0,
    });
}

#[test]
fn open_clips_parameters_are_fused_and_turned() {
    let mut case = Case::new();
    let root = "conditioner.embedders.1.model.";
    case.tensor(&format!("{root}transformer.resblocks.0.attn.in_proj_weight"), &[12, 4]);
    case.tensor(&format!("{root}text_projection"), &[4, 4]);
    let q = case.module("lora_te2_text_model_encoder_layers_0_self_attn_q_proj", 4, 4);
    let projection = case.module("lora_te2_text_projection", 4, 4);
    case.check(|name, at| match (name.contains("in_proj"), at / 4) {
        (true, row @ 0..4) => q.at(row, at % 4),
        (true, _) => 0.0,
        (false, row) => projection.at(at % 4, row),
    });
}

#[test]
fn torchs_attention_is_adapted_as_a_whole() {
    let (bench, mut random) = (Bench::new(), Random::new(3));
    let weight = random.values(12 * 4, 1.0);
    let base = Tensors::new().f32("attn.in_proj_weight", &[12, 4], &weight);
    let base = base.save(&bench.path("base.safetensors"));
    let made = update(&mut random, 12, 4);
    let adapter = Peft::new(RANK, 2.0).linear("attn", RANK, &made.down, &made.up);
    let adapter = adapter.save(&bench.path("adapter"));
    let merged = read(&bench.merge(&base, &[&adapter], "--verify"));
    for (got, (before, delta)) in
        merged["attn.in_proj_weight"].values().iter().zip(weight.iter().zip(&made.delta.values))
    {
        assert!((got - f64::from(*before) - delta).abs() < 1e-6);
    }
}

#[test]
fn lengths_of_rows_hold_in_a_part_of_a_tensor() {
    let (bench, mut random) = (Bench::new(), Random::new(5));
    let weight = random.values(12 * 5, 1.0);
    let base = Tensors::new().f32("double_blocks.0.img_attn.qkv.weight", &[12, 5], &weight);
    let base = base.save(&bench.path("base.safetensors"));
    let (k, v) = (update(&mut random, 4, 5), update(&mut random, 4, 5));
    let lengths = random.values(4, 2.0);
    let mut adapter = Peft::new(RANK, 2.0).field("use_dora", true);
    for (name, made) in [("k", &k), ("v", &v)] {
        let module = format!("transformer_blocks.0.attn.to_{name}");
        adapter = adapter.linear(&module, RANK, &made.down, &made.up).tensor(
            &format!("{module}.lora_magnitude_vector"),
            &[4],
            &lengths,
        );
    }
    let adapter = adapter.save(&bench.path("adapter"));
    let merged = read(&bench.merge(&base, &[&adapter], "--verify"));
    let merged = merged["double_blocks.0.img_attn.qkv.weight"].values();
    for row in 0..12 {
        let delta = |column: usize| match row {
            4..8 => k.delta.at(row - 4, column),
            8.. => v.delta.at(row - 8, column),
            _ => 0.0,
        };
        let before = |column: usize| f64::from(weight[row * 5 + column]);
        let sums: Vec<f64> = (0..5).map(|column| before(column) + delta(column)).collect();
        let norm = sums.iter().map(|value| value * value).sum::<f64>().sqrt();
        let factor = if row < 4 { 1.0 } else { f64::from(lengths[row % 4]) / norm };
        for (column, sum) in sums.iter().enumerate() {
            let got = merged[row * 5 + column];
            assert!((got - factor * sum).abs() < 1e-6, "{row}, {column}: {got}");
        }
    }
}

#[test]
fn parts_that_meet_or_do_not_fit_are_refused() {
    let refuse = |modules: &[(&str, usize, usize)]| {
        let mut case = Case::new();
        case.tensor("double_blocks.0.img_attn.qkv.weight", &[12, 5]);
        for (name, outputs, inputs) in modules {
            case.module(name, *outputs, *inputs);
        }
        let (base, adapter) = case.files();
        case.bench.refuse(&base, &[&adapter], "")
    };
    let (k, fused) = ("transformer_blocks.0.attn.to_k", "double_blocks.0.img_attn.qkv");
    let said = refuse(&[(k, 4, 5), (fused, 12, 5)]);
    assert!(said.contains(k) && said.contains(fused), "{said}");
    let said = refuse(&[(k, 3, 5)]);
    assert!(said.contains("rows 4..8"), "{said}");
    let said = refuse(&[(k, 4, 5), ("transformer_blocks.1.attn.to_k", 4, 5)]);
    assert!(said.contains("transformer_blocks.1.attn.to_k"), "{said}");
}

#[test]
fn merged_parts_are_the_same_for_any_number_of_threads() {
    let mut case = Case::new();
    case.tensor("single_blocks.0.linear1.weight", &[7 * 300, 130]);
    case.tensor("double_blocks.0.img_attn.qkv.weight", &[6, 5]);
    case.module("single_transformer_blocks.0.attn.to_q", 300, 130);
    case.module("single_transformer_blocks.0.proj_mlp", 1200, 130);
    let (base, adapter) = case.files();
    let values = |threads: usize| {
        let options = format!("--threads {threads} --dtype bf16");
        read(&case.bench.merge(&base, &[&adapter], &options))["single_blocks.0.linear1.weight"]
            .values()
    };
    assert_eq!(values(1), values(5));
}
