//! Experts in the spellings of trainers: lists of layers, whole parameters of any name, factors of all
//! experts in one tensor.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::PathBuf;

use crate::common::{Bench, Peft, Random, Tensors, product, read};

const EXPERTS: usize = 3;
const RANK: usize = 2;
const LAYER: &str = "model.layers.0";

/// Factors of each expert, for outputs × inputs.
fn factors(outputs: usize, inputs: usize, seed: u64) -> Vec<(Vec<f32>, Vec<f32>)> {
    let mut random = Random::new(seed);
    let one = |_| (random.values(RANK * inputs, 1.0), random.values(outputs * RANK, 1.0));
    (0..EXPERTS).map(one).collect()
}

/// The updates of a stack, an expert's after another's, as outputs × inputs.
fn updates(factors: &[(Vec<f32>, Vec<f32>)]) -> Vec<f64> {
    factors.iter().flat_map(|(down, up)| product(up, down, RANK)).collect()
}

/// The same matrices as inputs × outputs.
fn turned(values: &[f64], outputs: usize, inputs: usize) -> Vec<f64> {
    let matrices = values.chunks(outputs * inputs);
    matrices
        .flat_map(|matrix| {
            (0..outputs * inputs).map(move |at| matrix[at % outputs * inputs + at / outputs])
        })
        .collect()
}

/// PEFT's one pair for a stack: A with an expert's rows under another's, B with all experts' first
/// columns before all second ones.
fn joined(factors: &[(Vec<f32>, Vec<f32>)], outputs: usize) -> (Vec<f32>, Vec<f32>) {
    let down = factors.iter().flat_map(|(down, _)| down.clone()).collect();
    let mut up = Vec::new();
    for output in 0..outputs {
        for level in 0..RANK {
            up.extend(factors.iter().map(|(_, up)| up[output * RANK + level]));
        }
    }
    (down, up)
}

struct Stack<'a> {
    name: &'a str,
    shape: [usize; 3],
    update: Vec<f64>,
}

/// Merges, and holds every stack to its values + update.
fn check(bench: &Bench, stacks: &[Stack<'_>], adapter: &std::path::Path) {
    let (mut random, mut file) = (Random::new(5), Tensors::new());
    let mut before = Vec::new();
    for stack in stacks {
        let values = random.values(stack.shape.iter().product(), 1.0);
        file = file.f32(stack.name, &stack.shape, &values);
        before.push(values);
    }
    let base = file.save(&bench.path("base.safetensors"));
    let merged = read(&bench.merge(&base, &[adapter], "--verify"));
    for (stack, before) in stacks.iter().zip(before) {
        for (at, got) in merged[stack.name].values().iter().enumerate() {
            let exact = f64::from(before[at]) + stack.update[at];
            assert!((got - exact).abs() < 1e-5, "{} at {at}: {got}, not {exact}", stack.name);
        }
    }
}

#[test]
fn lists_of_layers_are_a_stack() {
    let bench = Bench::new();
    let (both, down) = (factors(8, 6, 1), factors(6, 4, 2));
    let mut peft = Peft::new(RANK, RANK as f64);
    for (list, factors) in [("gate_up_projs", &both), ("down_projs", &down)] {
        for (expert, (a, b)) in factors.iter().enumerate() {
            peft = peft.linear(&format!("{LAYER}.mlp.experts.{list}.{expert}"), RANK, a, b);
        }
    }
    let adapter = peft.save(&bench.path("adapter"));
    let name = |own: &str| format!("{LAYER}.mlp.experts.{own}");
    let (both_name, down_name) = (name("gate_up_proj"), name("down_proj"));
    let stacks = [
        Stack { name: &both_name, shape: [3, 6, 8], update: turned(&updates(&both), 8, 6) },
        Stack { name: &down_name, shape: [3, 4, 6], update: turned(&updates(&down), 6, 4) },
    ];
    check(&bench, &stacks, &adapter);
}

/// A PEFT adapter of whole parameters of a module, as PEFT 0.19 and newer write it.
fn parameter(bench: &Bench, module: &str, target: &str, pair: &(Vec<f32>, Vec<f32>)) -> PathBuf {
    let depth = EXPERTS * RANK;
    let (inputs, outputs) = (pair.0.len() / depth, pair.1.len() / depth);
    Peft::new(RANK, RANK as f64)
        .field("target_parameters", vec![target])
        .field("peft_version", "0.21.0")
        .tensor(&format!("{module}.lora_A.weight"), &[depth, inputs], &pair.0)
        .tensor(&format!("{module}.lora_B.weight"), &[outputs, depth], &pair.1)
        .save(&bench.path("adapter"))
}

#[test]
fn a_parameter_of_any_name_is_a_stack() {
    for (stored, module, target) in [
        (
            "block_sparse_moe.input_linear.weight",
            "block_sparse_moe.input_linear",
            "block_sparse_moe.input_linear.weight",
        ),
        // JetMoE's.
        ("mlp.output_linear.weight", "mlp.output_linear", "mlp.output_linear.weight"),
        (
            "self_attention.experts.input_linear.weight",
            "self_attention.experts.input_linear",
            "input_linear.weight",
        ),
        ("mlp.experts.fc1.weight", "mlp.experts.fc1", "experts.fc1.weight"),
        ("mixer.experts.odd_name", "mixer.experts", "mixer.experts.odd_name"),
        // Releases call them otherwise.
        (
            "block_sparse_moe.experts.gate_up_proj",
            "block_sparse_moe.input_linear",
            "block_sparse_moe.input_linear.weight",
        ),
        (
            "block_sparse_moe.input_linear.weight",
            "block_sparse_moe.experts",
            "block_sparse_moe.experts.gate_up_proj",
        ),
    ] {
        // Square ones too: the release says which side is which.
        for (outputs, inputs) in [(8, 6), (6, 6)] {
            let bench = Bench::new();
            let factors = factors(outputs, inputs, 1);
            let module = format!("{LAYER}.{module}");
            let adapter = parameter(&bench, &module, target, &joined(&factors, outputs));
            let name = format!("{LAYER}.{stored}");
            let update = updates(&factors);
            let shape = [EXPERTS, outputs, inputs];
            check(&bench, &[Stack { name: &name, shape, update }], &adapter);
        }
    }
}

#[test]
fn factors_of_all_experts_in_one_tensor_come_apart() {
    for shared in [false, true] {
        let bench = Bench::new();
        let mut factors = factors(8, 6, 1);
        if shared {
            let first = factors[0].0.clone();
            for (down, _) in &mut factors {
                down.clone_from(&first);
            }
        }
        let down: Vec<f32> = factors.iter().flat_map(|(down, _)| down.clone()).collect();
        let up: Vec<f32> = factors.iter().flat_map(|(_, up)| up.clone()).collect();
        let (count, down) = if shared { (1, &down[..RANK * 6]) } else { (EXPERTS, &down[..]) };
        let module = format!("{LAYER}.mlp.experts.gate_up_proj");
        let adapter = Peft::new(RANK, RANK as f64)
            .tensor(&format!("{module}.lora_A.weight"), &[count, RANK, 6], down)
            .tensor(&format!("{module}.lora_B.weight"), &[EXPERTS, 8, RANK], &up)
            .save(&bench.path("adapter"));
        let update = updates(&factors);
        check(&bench, &[Stack { name: &module, shape: [3, 8, 6], update }], &adapter);
    }
}
