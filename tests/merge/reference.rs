//! Numbers: merged tensors against a plain dense reference in f64 that rounds once, by its own code.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::{Bench, Peft, Random, Read, Tally, Tensors, product, read, rounded};
use lora_tool::format::Dtype;

const FLOATS: [Dtype; 3] = [Dtype::BF16, Dtype::F16, Dtype::F32];

/// Outputs, inputs, rank: around the kernel's blocks of 64 columns and groups of 4 rows, and one
/// that is worked on in several panels.
const SHAPES: [(usize, usize, usize); 8] = [
    (1, 1, 1),
    (5, 3, 2),
    (67, 130, 4),
    (3, 257, 7),
    (130, 64, 16),
    (128, 192, 33),
    (600, 900, 5),
    (33, 1, 3),
];

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn transposed(values: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}

/// `base` moved by so much of each delta.
fn sum(base: &[f32], deltas: &[(f64, Vec<f64>)]) -> Vec<f64> {
    let moved = |at: usize| deltas.iter().map(|(by, delta)| by * delta[at]).sum::<f64>();
    base.iter().enumerate().map(|(at, value)| f64::from(*value) + moved(at)).collect()
}

/// One module's factors.
struct Factors {
    dtype: Dtype,
    rank: usize,
    up: Vec<f32>,
    down: Vec<f32>,
}

impl Factors {
    fn delta(&self) -> Vec<f64> {
        product(&self.up, &self.down, self.rank)
    }

    /// Adds them to a file in kohya's spelling, with an alpha that makes their scale `scale`.
    fn add_to(&self, file: Tensors, module: &str, scale: f32) -> Tensors {
        let (outputs, inputs) = (self.up.len() / self.rank, self.down.len() / self.rank);
        let (down, up) = ([self.rank, inputs], [outputs, self.rank]);
        file.f32(&format!("{module}.alpha"), &[], &[scale * self.rank as f32])
            .float(&format!("{module}.lora_down.weight"), self.dtype, &down, &self.down)
            .float(&format!("{module}.lora_up.weight"), self.dtype, &up, &self.up)
    }
}

/// A base in the making, and what each of its tensors shall become.
struct Trial {
    bench: Bench,
    random: Random,
    dtype: Dtype,
    base: Tensors,
    exact: Vec<(String, Vec<f64>)>,
}

impl Trial {
    fn new(dtype: Dtype, seed: u64) -> Self {
        let (bench, random) = (Bench::new(), Random::new(seed));
        Self { bench, random, dtype, base: Tensors::new(), exact: Vec::new() }
    }

    /// Random values that a dtype holds exactly.
    fn values(&mut self, dtype: Dtype, count: usize) -> Vec<f32> {
        let values = self.random.values(count, 0.05).into_iter();
        values.map(|value| rounded(dtype, f64::from(value)) as f32).collect()
    }

    /// Adds a tensor to the base.
    fn weight(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        let values = self.values(self.dtype, shape.iter().product());
        self.base = std::mem::take(&mut self.base).float(name, self.dtype, shape, &values);
        values
    }

    /// Factors whose product is about a tenth of the base.
    fn factors(&mut self, dtype: Dtype, outputs: usize, inputs: usize, rank: usize) -> Factors {
        let up = self.values(dtype, outputs * rank);
        Factors { dtype, rank, up, down: self.values(dtype, rank * inputs) }
    }

    fn expect(&mut self, name: &str, exact: Vec<f64>) {
        self.exact.push((name.to_owned(), exact));
    }

    fn file(&self, adapter: &Tensors, name: &str) -> PathBuf {
        adapter.save(&self.bench.path(&format!("{name}.safetensors")))
    }

    /// Merges and holds the result to what it shall be; the base and the result.
    fn check(&self, adapters: &[&Path], options: &str, label: &str) -> [BTreeMap<String, Read>; 2] {
        let base = self.file(&self.base, "model");
        let merged = read(&self.bench.merge(&base, adapters, options));
        let (base, mut tally) = (read(&base), Tally::default());
        for (name, exact) in &self.exact {
            assert_eq!(merged[name].shape, base[name].shape);
            tally.add(name, &merged[name], exact);
        }
        tally.check(label);
        [base, merged]
    }
}

#[test]
fn linear_updates_round_once() {
    for (dtype, adapter_dtype) in FLOATS.into_iter().flat_map(|a| FLOATS.map(|b| (a, b))) {
        let (mut trial, mut adapter) = (Trial::new(dtype, 7), Tensors::new());
        for (at, (outputs, inputs, rank)) in SHAPES.into_iter().enumerate() {
            let name = format!("layers.{at}.weight");
            let weight = trial.weight(&name, &[outputs, inputs]);
            let factors = trial.factors(adapter_dtype, outputs, inputs, rank);
            adapter = factors.add_to(adapter, &format!("layers.{at}"), 0.75);
            trial.expect(&name, sum(&weight, &[(0.75, factors.delta())]));
        }
        let adapter = trial.file(&adapter, "adapter");
        trial.check(&[&adapter], "", &format!("{adapter_dtype} into {dtype}"));
    }
}

#[test]
fn several_adapters_add_up_before_the_one_rounding() {
    for dtype in FLOATS {
        let (mut trial, mut files) = (Trial::new(dtype, 11), vec![Tensors::new(); 4]);
        let weights = [0.7, -0.3, 1.5, -1.0];
        for (at, (outputs, inputs, _)) in SHAPES.into_iter().enumerate() {
            let name = format!("layers.{at}.weight");
            let weight = trial.weight(&name, &[outputs, inputs]);
            let mut deltas = Vec::new();
            for (number, file) in files.iter_mut().enumerate() {
                // The last adapter leaves every other tensor alone.
                if number < 3 || at % 2 == 0 {
                    let rank = 2 + 3 * number;
                    let factors = trial.factors(FLOATS[number % 3], outputs, inputs, rank);
                    *file = factors.add_to(file.clone(), &format!("layers.{at}"), 0.5);
                    deltas.push((0.5 * weights[number], factors.delta()));
                }
            }
            trial.expect(&name, sum(&weight, &deltas));
        }
        let paths = [0, 1, 2, 3].map(|at| trial.file(&files[at], &format!("adapter{at}")));
        let paths = paths.each_ref().map(PathBuf::as_path);
        let label = format!("four adapters into {dtype}");
        trial.check(&paths, "-w 0.7 -0.3 1.5 -1", &label);
    }
}

#[test]
fn factors_of_convolutions_are_flattened() {
    // (base, down, up), with a rank of 4 throughout.
    let cases: [[&[usize]; 3]; 9] = [
        [&[18, 15, 3, 3], &[4, 15, 3, 3], &[18, 4, 1, 1]],
        [&[18, 15, 3, 3], &[4, 15, 3, 3], &[18, 4]],
        [&[7, 6, 1, 5], &[4, 6, 1, 5], &[7, 4, 1, 1]],
        [&[19, 17, 1, 1], &[4, 17, 1, 1], &[19, 4, 1, 1]],
        [&[19, 17, 1, 1], &[4, 17], &[19, 4]],
        [&[19, 17], &[4, 17, 1, 1], &[19, 4, 1, 1]],
        [&[16, 15, 3], &[4, 15, 3], &[16, 4, 1]],
        [&[16, 15, 1], &[4, 15, 1], &[16, 4, 1]],
        [&[14, 3, 2, 3, 3], &[4, 3, 2, 3, 3], &[14, 4, 1, 1, 1]],
    ];
    for dtype in FLOATS {
        let (mut trial, mut adapter) = (Trial::new(dtype, 13), Tensors::new());
        for (at, [shape, down, up]) in cases.into_iter().enumerate() {
            let key = |part: &str| format!("layers.{at}{part}.weight");
            let weight = trial.weight(&key(""), shape);
            let factors = trial.factors(Dtype::F32, shape[0], weight.len() / shape[0], 4);
            trial.expect(&key(""), sum(&weight, &[(1.0, factors.delta())]));
            adapter = adapter.f32(&key(".lora_down"), down, &factors.down).f32(
                &key(".lora_up"),
                up,
                &factors.up,
            );
        }
        let adapter = trial.file(&adapter, "adapter");
        trial.check(&[&adapter], "", &format!("convolutions of {dtype}"));
    }
}

#[test]
fn squares_are_transposed_where_the_base_or_else_the_config_says_so() {
    // PEFT decides by the layer's class, and GPT-2's are Conv1D whatever the config says, and
    // whatever the adapter's other layers are: its head is an ordinary one.
    for (gpt2, flag) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut trial, name) = (Trial::new(Dtype::BF16, 17), "h.0.attn.c_proj");
        let weight = trial.weight(&format!("{name}.weight"), &[40, 40]);
        let factors = trial.factors(Dtype::F32, 40, 40, 4);
        let mut delta = factors.delta();
        if gpt2 || flag {
            delta = transposed(&delta, 40);
        }
        trial.expect(&format!("{name}.weight"), sum(&weight, &[(2.0, delta)]));
        let mut adapter = Peft::new(4, 8.0).field("fan_in_fan_out", flag);
        adapter = adapter.linear(name, 4, &factors.down, &factors.up);
        if gpt2 {
            trial.weight("h.0.attn.c_attn.weight", &[40, 120]);
            let head = trial.weight("lm_head.weight", &[50, 40]);
            let factors = trial.factors(Dtype::F32, 50, 40, 4);
            trial.expect("lm_head.weight", sum(&head, &[(2.0, factors.delta())]));
            adapter = adapter.linear("lm_head", 4, &factors.down, &factors.up);
        }
        let adapter = adapter.save(&trial.bench.path("adapter"));
        trial.check(&[&adapter], "", &format!("GPT-2: {gpt2}, flag: {flag}"));
    }
}

#[test]
fn rectangles_and_embeddings_lie_as_their_shapes_say() {
    for dtype in FLOATS {
        let mut trial = Trial::new(dtype, 19);
        let fused = trial.weight("h.0.attn.c_attn.weight", &[40, 120]);
        let table = trial.weight("wte.weight", &[75, 40]);
        let attention = trial.factors(Dtype::F32, 120, 40, 4);
        let embedding = trial.factors(Dtype::F32, 40, 75, 4);
        let exact = sum(&fused, &[(0.5, transposed(&attention.delta(), 40))]);
        trial.expect("h.0.attn.c_attn.weight", exact);
        let exact = sum(&table, &[(0.5, transposed(&embedding.delta(), 75))]);
        trial.expect("wte.weight", exact);
        // The flag is wrong here, and shapes decide.
        let adapter = Peft::new(4, 2.0)
            .field("fan_in_fan_out", false)
            .linear("h.0.attn.c_attn", 4, &attention.down, &attention.up)
            .tensor("wte.lora_embedding_A", &[4, 75], &embedding.down)
            .tensor("wte.lora_embedding_B", &[40, 4], &embedding.up)
            .save(&trial.bench.path("adapter"));
        trial.check(&[&adapter], "", &format!("transposed in {dtype}"));
    }
}

#[test]
fn another_dtype_for_the_result_is_rounded_to_from_the_sum() {
    let pairs = [
        (Dtype::F32, "bf16", Dtype::BF16),
        (Dtype::F32, "f16", Dtype::F16),
        (Dtype::BF16, "f32", Dtype::F32),
        (Dtype::F16, "f32", Dtype::F32),
        (Dtype::F16, "bf16", Dtype::BF16),
        (Dtype::F64, "f32", Dtype::F32),
        (Dtype::F64, "bf16", Dtype::BF16),
        (Dtype::F64, "keep", Dtype::F64),
    ];
    for (from, option, to) in pairs {
        let mut trial = Trial::new(from, 23);
        let adapted = trial.weight("a.weight", &[67, 130]);
        let other = trial.weight("b.weight", &[999]);
        trial.base = trial.base.raw("steps", Dtype::I64, &[1], &[1, 2, 3, 4, 5, 6, 7, 8]);
        let factors = trial.factors(Dtype::F32, 67, 130, 6);
        let adapter = trial.file(&factors.add_to(Tensors::new(), "a", 1.5), "adapter");
        trial.expect("a.weight", sum(&adapted, &[(1.5, factors.delta())]));
        trial.expect("b.weight", widen(&other));
        let options = format!("--dtype {option}");
        let [base, merged] = trial.check(&[&adapter], &options, &format!("{from} to {option}"));
        assert_eq!((merged["a.weight"].dtype, merged["b.weight"].dtype), (to, to));
        assert_eq!(merged["steps"], base["steps"]);
        let converted: Vec<f64> = widen(&other).iter().map(|value| rounded(to, *value)).collect();
        assert_eq!(merged["b.weight"].values(), converted, "{from} to {option}");
    }
}

/// m/‖V‖ · V for each row of V = W + delta, moved there from W by `share`.
fn dora(weight: &[f64], delta: &[f64], magnitude: &[f32], share: f64) -> Vec<f64> {
    let (mut result, inputs) = (weight.to_vec(), weight.len() / magnitude.len());
    for (output, row) in result.chunks_mut(inputs).enumerate() {
        let delta = &delta[output * inputs..][..inputs];
        let direction: Vec<f64> = row.iter().zip(delta).map(|(w, d)| w + d).collect();
        let squares: f64 = direction.iter().map(|value| value * value).sum();
        let factor = f64::from(magnitude[output]) / squares.sqrt();
        for (value, direction) in row.iter_mut().zip(direction) {
            *value += share * (factor * direction - *value);
        }
    }
    result
}

#[test]
fn dora_rescales_outputs_wherever_they_lie() {
    // (module, outputs, base shape, shapes of A, B and the magnitude, whether it lies transposed)
    let cases: [(&str, usize, [&[usize]; 4], bool); 4] = [
        ("fc", 400, [&[400, 410], &[4, 410], &[400, 4], &[400]], false),
        ("conv", 18, [&[18, 15, 3, 3], &[4, 15, 3, 3], &[18, 4, 1, 1], &[1, 18, 1, 1]], false),
        ("h.0.c_attn", 410, [&[400, 410], &[4, 400], &[410, 4], &[410]], true),
        ("wte", 40, [&[75, 40], &[4, 75], &[40, 4], &[40]], true),
    ];
    let runs = [(Dtype::BF16, 1.0), (Dtype::F32, 1.0), (Dtype::F16, 0.5), (Dtype::F32, 0.5)];
    for (dtype, share) in runs {
        let mut trial = Trial::new(dtype, 29);
        let mut adapter = Peft::new(4, 3.0).field("use_dora", true);
        for (module, outputs, [shape, a, b, m], turned) in cases {
            let name = format!("{module}.weight");
            let stored = widen(&trial.weight(&name, shape));
            let inputs = stored.len() / outputs;
            let factors = trial.factors(Dtype::F32, outputs, inputs, 4);
            let magnitude = trial.random.values(outputs, 0.2);
            let magnitude: Vec<f32> = magnitude.iter().map(|value| value + 0.4).collect();
            let (down, up) = match module {
                "wte" => ("lora_embedding_A", "lora_embedding_B"),
                _ => ("lora_A.weight", "lora_B.weight"),
            };
            adapter = adapter
                .tensor(&format!("{module}.{down}"), a, &factors.down)
                .tensor(&format!("{module}.{up}"), b, &factors.up)
                .tensor(&format!("{module}.lora_magnitude_vector"), m, &magnitude);
            let delta: Vec<f64> = factors.delta().iter().map(|value| 0.75 * value).collect();
            let turn = |values: Vec<f64>, columns| {
                if turned { transposed(&values, columns) } else { values }
            };
            let result = dora(&turn(stored, outputs), &delta, &magnitude, share);
            trial.expect(&name, turn(result, inputs));
        }
        let adapter = adapter.save(&trial.bench.path("adapter"));
        let label = format!("DoRA at {share} into {dtype}");
        trial.check(&[&adapter], &format!("-w {share}"), &label);
    }
}
