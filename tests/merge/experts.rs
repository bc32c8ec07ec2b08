//! Adapters of single experts, on bases that store experts one by one or all of a layer's in stacks.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;

use crate::common::{Bench, Random, Tensors, product, read};

const EXPERTS: usize = 3;
const INNER: usize = 4;
const HIDDEN: usize = 6;
const RANK: usize = 2;

/// Updates of expert 1's gate, up and down, as outputs × inputs; and the adapter that has them.
fn adapter(bench: &Bench, module: &str, names: [&str; 3]) -> (std::path::PathBuf, [Vec<f64>; 3]) {
    let mut random = Random::new(11);
    let shapes = [(INNER, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)];
    let mut file = Tensors::new();
    let mut deltas = [const { Vec::new() }; 3];
    for ((name, (outputs, inputs)), delta) in names.iter().zip(shapes).zip(&mut deltas) {
        let (down, up) = (random.values(RANK * inputs, 1.0), random.values(outputs * RANK, 1.0));
        *delta = product(&up, &down, RANK);
        file = file
            .f32(&format!("{module}.1.{name}.lora_down.weight"), &[RANK, inputs], &down)
            .f32(&format!("{module}.1.{name}.lora_up.weight"), &[outputs, RANK], &up);
    }
    (file.save(&bench.path("adapter.safetensors")), deltas)
}

/// Merges into a base of these tensors and holds each to its values + `delta(tensor, index)`.
fn check(
    bench: &Bench,
    tensors: &BTreeMap<String, Vec<usize>>,
    adapter: &std::path::Path,
    delta: impl Fn(&str, usize) -> f64,
) {
    let (mut random, mut file) = (Random::new(5), Tensors::new());
    let mut before = BTreeMap::new();
    for (name, shape) in tensors {
        let values = random.values(shape.iter().product(), 1.0);
        file = file.f32(name, shape, &values);
        before.insert(name.as_str(), values);
    }
    let base = file.save(&bench.path("base.safetensors"));
    let merged = read(&bench.merge(&base, &[adapter], "--verify"));
    for (name, values) in before {
        for (at, (got, value)) in merged[name].values().iter().zip(values).enumerate() {
            let exact = f64::from(value) + delta(name, at);
            assert!((got - exact).abs() < 1e-6, "{name} at {at}: {got}, expected {exact}");
        }
    }
}

fn stacks(layer: &str, turned: bool) -> BTreeMap<String, Vec<usize>> {
    let shape = |outputs, inputs| match turned {
        true => vec![EXPERTS, inputs, outputs],
        false => vec![EXPERTS, outputs, inputs],
    };
    BTreeMap::from([
        (format!("{layer}.experts.gate_up_proj"), shape(2 * INNER, HIDDEN)),
        (format!("{layer}.experts.down_proj"), shape(HIDDEN, INNER)),
    ])
}

/// Expert, and row and column of its matrix, of an element of a stack.
fn position(at: usize, rows: usize, columns: usize) -> (usize, usize, usize) {
    (at / (rows * columns), at / columns % rows, at % columns)
}

#[test]
fn an_expert_lands_in_its_matrix_of_a_stack() {
    for (module, names) in [
        ("model.layers.0.mlp.experts", ["gate_proj", "up_proj", "down_proj"]),
        ("model.layers.0.block_sparse_moe.experts", ["w1", "w3", "w2"]),
    ] {
        let bench = Bench::new();
        let (adapter, [gate, up, down]) = adapter(&bench, module, names);
        check(&bench, &stacks("model.layers.0.mlp", false), &adapter, |name, at| {
            if name.ends_with("down_proj") {
                let (expert, row, column) = position(at, HIDDEN, INNER);
                return if expert == 1 { down[row * INNER + column] } else { 0.0 };
            }
            match position(at, 2 * INNER, HIDDEN) {
                (1, row @ 0..INNER, column) => gate[row * HIDDEN + column],
                (1, row, column) => up[(row - INNER) * HIDDEN + column],
                _ => 0.0,
            }
        });
    }
}

#[test]
fn stacks_of_inputs_by_outputs_are_turned_and_those_of_gpt_oss_take_turns() {
    for in_turns in [false, true] {
        let bench = Bench::new();
        let names = ["gate_proj", "up_proj", "down_proj"];
        let (adapter, [gate, up, down]) = adapter(&bench, "model.layers.0.mlp.experts", names);
        let mut tensors = stacks("model.layers.0.mlp", true);
        if in_turns {
            let bias = "model.layers.0.mlp.experts.gate_up_proj_bias".to_owned();
            tensors.insert(bias, vec![EXPERTS, 2 * INNER]);
        }
        check(&bench, &tensors, &adapter, |name, at| {
            if name.ends_with("bias") {
                return 0.0;
            }
            if name.ends_with("down_proj") {
                let (expert, row, column) = position(at, INNER, HIDDEN);
                return if expert == 1 { down[column * INNER + row] } else { 0.0 };
            }
            let (expert, row, column) = position(at, HIDDEN, 2 * INNER);
            let (half, output) =
                if in_turns { (column % 2, column / 2) } else { (column / INNER, column % INNER) };
            let own = if half == 0 { &gate } else { &up };
            if expert == 1 { own[output * HIDDEN + row] } else { 0.0 }
        });
    }
}

#[test]
fn an_expert_of_another_release_is_the_same_expert() {
    let bench = Bench::new();
    let names = ["gate_proj", "up_proj", "down_proj"];
    let (adapter, [gate, up, down]) = adapter(&bench, "model.layers.0.mlp.experts", names);
    let mut tensors = BTreeMap::new();
    for expert in 0..EXPERTS {
        let name =
            |own: &str| format!("model.layers.0.block_sparse_moe.experts.{expert}.{own}.weight");
        tensors.insert(name("w1"), vec![INNER, HIDDEN]);
        tensors.insert(name("w3"), vec![INNER, HIDDEN]);
        tensors.insert(name("w2"), vec![HIDDEN, INNER]);
    }
    check(&bench, &tensors, &adapter, |name, at| {
        if !name.contains("experts.1.") {
            return 0.0;
        }
        match name {
            name if name.contains("w1") => gate[at],
            name if name.contains("w3") => up[at],
            _ => down[at],
        }
    });
}
