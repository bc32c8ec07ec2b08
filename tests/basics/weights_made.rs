//! Encodings of which no package's case is at hand, held to the laws that all obey: what is written is what will be
//! read, as near as a step allows, and what lies on the grid stays there.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use lora_tool::format::Dtype;
use lora_tool::weight::{Part, Rounding, Scales, Writing};
use serde_json::{Value, json};

use super::weights_written::{encode, values, weights};
use crate::common::{Bench, Random, Tensors};

const ROWS: usize = 256;
const COLUMNS: usize = 128;

/// A tensor whose bytes are all the same.
struct Filled(&'static str, Dtype, Vec<usize>, u8);

/// One encoding: its name, its config, its tensors, the largest error as a share of a row's largest magnitude.
struct Case(String, Value, Vec<(String, Dtype, Vec<usize>, Vec<u8>)>, f64);

impl Case {
    fn new(name: &str, config: Value, tensors: Vec<Filled>, error: f64) -> Self {
        let tensors = tensors.into_iter().map(|Filled(name, dtype, shape, byte)| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            (name.to_owned(), dtype, shape, vec![byte; bytes])
        });
        Self(name.to_owned(), config, tensors.collect(), error)
    }

    /// The same with a tensor of whole numbers.
    fn with(mut self, name: &str, numbers: &[usize]) -> Self {
        let words = numbers.iter().map(|number| u32::try_from(*number).expect("a small number"));
        let bytes = words.flat_map(u32::to_le_bytes).collect();
        self.2.push((name.to_owned(), Dtype::I32, vec![numbers.len()], bytes));
        self
    }

    /// Saves it, some of its tensors written anew.
    fn save(&self, bench: &Bench, to: &str, parts: &[(Part, Vec<u8>)]) -> PathBuf {
        let mut tensors = Tensors::new();
        for (name, dtype, shape, bytes) in &self.2 {
            let new = parts.iter().find(|(part, _)| part.name == *name);
            tensors = match new {
                Some((part, bytes)) => tensors.raw(name, part.dtype, &part.shape, bytes),
                None => tensors.raw(name, *dtype, shape, bytes),
            };
        }
        let directory = bench.path(&format!("{}-{to}", self.0));
        std::fs::create_dir_all(&directory).expect("a directory");
        tensors.save(&directory.join("model.safetensors"));
        std::fs::write(directory.join("config.json"), self.1.to_string()).expect("written");
        directory
    }
}

/// A group for every column, not in their order.
fn order() -> Vec<usize> {
    (0..COLUMNS).map(|column| column * 7 % COLUMNS / 32).collect()
}

fn packed(name: &str, symmetric: bool, error: f64) -> Case {
    let config = json!({"quantization_config": {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": [],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
            "num_bits": 4, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": 32,
        }}},
    }});
    let mut tensors = vec![
        Filled("m.weight_packed", Dtype::I32, vec![ROWS, COLUMNS / 8], 0),
        Filled("m.weight_scale", Dtype::BF16, vec![ROWS, COLUMNS / 32], 0),
    ];
    if !symmetric {
        let zeros = vec![ROWS / 8, COLUMNS / 32];
        tensors.push(Filled("m.weight_zero_point", Dtype::I32, zeros, 0));
    }
    Case::new(name, config, tensors, error).with("m.weight_shape", &[ROWS, COLUMNS])
}

fn gptq(name: &str, symmetric: bool, error: f64) -> Case {
    let config = json!({"quantization_config": {
        "quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": true, "sym": symmetric,
        "checkpoint_format": "gptq_v2",
    }});
    let zero = if symmetric { 0x88 } else { 0x53 };
    let tensors = vec![
        Filled("m.qweight", Dtype::I32, vec![COLUMNS / 8, ROWS], 0),
        Filled("m.qzeros", Dtype::I32, vec![COLUMNS / 32, ROWS / 8], zero),
        Filled("m.scales", Dtype::F16, vec![COLUMNS / 32, ROWS], 0),
    ];
    Case::new(name, config, tensors, error).with("m.g_idx", &order())
}

fn mlx(bits: usize) -> Case {
    let config = json!({"quantization": {"group_size": 64, "bits": bits}});
    let groups = vec![ROWS, COLUMNS / 64];
    let tensors = vec![
        Filled("m.weight", Dtype::U32, vec![ROWS, COLUMNS * bits / 32], 0),
        Filled("m.scales", Dtype::F16, groups.clone(), 0),
        Filled("m.biases", Dtype::F16, groups, 0),
    ];
    // Steps between the ends of a row, the further of which is a whole number of steps from 0.
    let step = 2.0 / ((1 << bits) - 1) as f64;
    Case::new(&format!("mlx-{bits}"), config, tensors, step + 0.001)
}

fn cases() -> Vec<Case> {
    let modelopt =
        json!({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}});
    let fp4 = vec![
        Filled("m.weight", Dtype::U8, vec![ROWS, COLUMNS / 2], 0),
        Filled("m.weight_scale", Dtype::F8_E4M3, vec![ROWS, COLUMNS / 16], 0),
        Filled("m.weight_scale_2", Dtype::F32, vec![], 0),
    ];
    let blocks = json!({"quantization_config": {
        "quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0",
    }});
    let powers = vec![
        Filled("m.weight", Dtype::F8_E4M3, vec![ROWS, COLUMNS], 0),
        Filled("m.weight_scale_inv", Dtype::F8_E8M0, vec![ROWS / 128, 1], 0),
    ];
    let mut all = vec![
        packed("int4-asymmetric", false, 0.14),
        packed("int4-order", true, 0.07).with("m.weight_g_idx", &order()),
        packed("int4-asymmetric-order", false, 0.14).with("m.weight_g_idx", &order()),
        gptq("gptq-v2-order", true, 0.07),
        gptq("gptq-v2-asymmetric-order", false, 0.14),
        Case::new("nvfp4-modelopt", modelopt, fp4, 0.18),
        Case::new("fp8-powers-of-two", blocks, powers, 0.063),
    ];
    all.extend([2, 3, 5, 6, 8].map(mlx));
    all
}

fn open(path: &Path) -> lora_tool::weight::Weight {
    weights(path).get("m.weight").expect("a weight").clone()
}

#[test]
fn encodings_without_a_case_obey_the_laws() {
    let bench = Bench::new();
    let given = Random::new(11).values(ROWS * COLUMNS, 0.3);
    for case in cases() {
        let name = case.0.clone();
        let blank = open(&case.save(&bench, "blank", &[]));
        assert_eq!(blank.shape, [ROWS, COLUMNS], "{name}");
        let written = encode(&blank, &given, Writing::default());
        let path = case.save(&bench, "written", &written.parts);
        let stored = open(&path);
        let found = values(&stored);
        assert!(found == written.values, "{name}: what is read is not what was written");
        for (row, (given, found)) in given.chunks(COLUMNS).zip(found.chunks(COLUMNS)).enumerate() {
            let most = given.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            let away = given.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(f64::from(away / most) <= case.3, "{name}: row {row}: {away} of {most}");
        }
        // With its own scales every number of the grid stays, however it is rounded.
        for rounding in [Rounding::Nearest, Rounding::Stochastic { seed: 5 }] {
            let writing = Writing { scales: Scales::Reuse, rounding };
            let again = encode(&stored, &found, writing);
            assert!(again.values == found, "{name}: {rounding:?}");
        }
    }
}

#[test]
fn scales_are_those_of_the_formulas() {
    let bench = Bench::new();
    let given = Random::new(12).values(ROWS * COLUMNS, 0.3);
    let number = |bytes: &[u8]| half::bf16::from_le_bytes([bytes[0], bytes[1]]).to_f64();
    let order = order();
    for (case, symmetric, ordered) in [
        (packed("asymmetric", false, 0.0), false, false),
        (packed("order", true, 0.0).with("m.weight_g_idx", &order), true, true),
    ] {
        let blank = open(&case.save(&bench, "blank", &[]));
        let written = encode(&blank, &given, Writing::default());
        let (_, scales) =
            written.parts.iter().find(|(part, _)| part.name == "m.weight_scale").expect("scales");
        for (at, bytes) in scales.chunks_exact(2).enumerate() {
            let (row, group) = (at / 4, at % 4);
            let of_group = |column: &usize| match ordered {
                true => order[*column] == group,
                false => column / 32 == group,
            };
            let values = (0..COLUMNS).filter(of_group);
            let values = values.map(|column| f64::from(given[row * COLUMNS + column]));
            let (low, high) =
                values.fold((0.0f64, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
            let expected = if symmetric { high.max(-low) / 7.5 } else { (high - low) / 15.0 };
            let found = number(bytes);
            assert!((found - expected).abs() <= expected / 256.0, "{}: {at}", case.0);
        }
    }
}
