//! More rules that a naive reader or writer of quantised weights breaks: orders of nibbles, turned and reshaped tensors,
//! rows that are no whole blocks, and how numbers are rounded, each worked out by hand.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::path::PathBuf;

use half::f16;
use lora_tool::format::{Access, Checkpoint, Dtype};
use lora_tool::weight::{Rounding, Scales, Weight, Weights, Writing};
use serde_json::{Value, json};

use super::weights_refused::Case;
use super::weights_rules::{brains, halves, nf4, words};
use super::weights_written::{encode, values};
use crate::common::{Bench, Tensors};

/// A GGUF file of version 3: pairs of text, and tensors by name, dimensions (the fastest first), type and bytes.
fn gguf(
    bench: &Bench,
    pairs: &[(&str, &str)],
    tensors: &[(&str, &[u64], u32, Vec<u8>)],
) -> PathBuf {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    let text = |file: &mut Vec<u8>, text: &str| {
        file.extend((text.len() as u64).to_le_bytes());
        file.extend(text.as_bytes());
    };
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        text(&mut file, key);
        file.extend(8u32.to_le_bytes());
        text(&mut file, value);
    }
    let mut data = Vec::new();
    for (name, dimensions, kind, bytes) in tensors {
        text(&mut file, name);
        file.extend((dimensions.len() as u32).to_le_bytes());
        file.extend(dimensions.iter().flat_map(|size| size.to_le_bytes()));
        file.extend(kind.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    let path = bench.path("model.gguf");
    std::fs::write(&path, file).expect("written");
    path
}

/// A block of Q4_0: d, then codes 0 to 15 and 15 to 0.
fn q4_0(d: f32) -> (Vec<u8>, Vec<f32>) {
    let mut block = f16::from_f32(d).to_le_bytes().to_vec();
    block.extend((0..16u8).map(|code| code | (15 - code) << 4));
    let codes = (0..16).chain((0..16).rev());
    (block, codes.map(|code| d * (code as f32 - 8.0)).collect())
}

fn opened(path: &std::path::Path) -> Result<Weights, lora_tool::Error> {
    Weights::of(&Checkpoint::open(path, Access::Map)?)
}

#[test]
fn rules_4_20_and_21_ggml_halves_its_blocks_and_turns_its_dimensions() {
    let bench = Bench::new();
    let blocks: Vec<_> = [1.0, -0.5, 2.0, 0.25].into_iter().map(q4_0).collect();
    let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.0.clone()).collect();
    let expected: Vec<f32> = blocks.iter().flat_map(|block| block.1.clone()).collect();
    let pairs = [("general.architecture", "llama")];
    // 64 inputs, the fastest, and two outputs.
    let path = gguf(&bench, &pairs, &[("blk.0.ffn_up.weight", &[64, 2], 2, bytes.clone())]);
    let weights = opened(&path).expect("reads");
    let weight = weights.get("blk.0.ffn_up.weight").expect("a weight");
    assert_eq!((weight.shape.as_slice(), values(weight)), (&[2, 64][..], expected));
    // A row never shares a block: 48 columns are none of whole blocks.
    let path = gguf(&bench, &pairs, &[("blk.0.ffn_up.weight", &[48, 2], 2, bytes)]);
    let error = opened(&path).expect_err("48 columns");
    assert_eq!(error.tensor(), Some("blk.0.ffn_up.weight"), "{error}");
    assert!(error.to_string().contains("rows of it are multiples of 32"), "{error}");
}

#[test]
fn rule_22_comfy_remembers_the_shape_that_it_reshaped() {
    let bench = Bench::new();
    let (block, expected) = q4_0(0.5);
    let tensors = [("a.weight", &[32][..], 2, block)];
    let told = [("comfy.gguf.orig_shape.a.weight", "[2, 4, 2, 2]")];
    let path = gguf(&bench, &told, &tensors);
    let weights = opened(&path).expect("reads");
    let weight = weights.get("a.weight").expect("a weight");
    assert_eq!((weight.shape.as_slice(), values(weight)), (&[2, 4, 2, 2][..], expected));
    let path = gguf(&bench, &[("comfy.gguf.orig_shape.a.weight", "[3, 4]")], &tensors);
    assert_eq!(opened(&path).expect_err("12 elements").tensor(), Some("a.weight"));
}

#[test]
fn rules_4_and_9_awq_has_an_order_of_its_own_and_is_transposed() {
    const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
    let (inputs, outputs, group) = (4usize, 16usize, 2usize);
    let code = |input: usize, output: usize| (input * 5 + output * 3) as u32 % 16;
    let zero = |group: usize, output: usize| (group * 7 + output) as u32 % 16;
    let scale = |group: usize, output: usize| 0.25 * (1 + group + output) as f32;
    let packed = |number: &dyn Fn(usize) -> u32| -> Vec<u32> {
        let word = |word: usize| {
            let nibbles = ORDER.iter().enumerate();
            nibbles.fold(0, |bits, (at, column)| bits | number(word * 8 + column) << (4 * at))
        };
        (0..outputs / 8).map(word).collect()
    };
    let codes: Vec<u32> = (0..inputs).flat_map(|i| packed(&|o| code(i, o))).collect();
    let zeros: Vec<u32> = (0..inputs / group).flat_map(|g| packed(&|o| zero(g, o))).collect();
    let scales: Vec<f32> = (0..inputs / group)
        .flat_map(|group| (0..outputs).map(move |output| scale(group, output)))
        .collect();
    let tensors = Tensors::new()
        .raw("a.qweight", Dtype::I32, &[inputs, outputs / 8], &words(&codes))
        .raw("a.qzeros", Dtype::I32, &[inputs / group, outputs / 8], &words(&zeros))
        .raw("a.scales", Dtype::F16, &[inputs / group, outputs], &halves(&scales));
    let config = json!({"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm"});
    let expected: Vec<f32> = (0..outputs)
        .flat_map(|output| (0..inputs).map(move |input| (input, output)))
        .map(|(input, output)| {
            let group = input / group;
            (code(input, output).cast_signed() - zero(group, output).cast_signed()) as f32
                * scale(group, output)
        })
        .collect();
    assert_eq!(Case::new(tensors, config).values(), expected);
}

/// Two experts of 32 inputs and three outputs as gpt-oss stores them: every output has its own scale, its codes rise.
#[test]
fn rule_17_experts_of_gpt_oss_are_stored_by_outputs_and_used_by_inputs() {
    const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let (experts, outputs) = (2usize, 3usize);
    let code = |expert: usize, output: usize, input: usize| (expert + output + input) % 8;
    let bytes: Vec<u8> = (0..experts * outputs * 16)
        .map(|at| {
            let (expert, output, byte) = (at / 48, at / 16 % 3, at % 16);
            let nibble = |input: usize| code(expert, output, input) as u8;
            nibble(2 * byte) | nibble(2 * byte + 1) << 4
        })
        .collect();
    let tensors = Tensors::new()
        .raw("l.experts.down_proj_blocks", Dtype::U8, &[experts, outputs, 1, 16], &bytes)
        .raw(
            "l.experts.down_proj_scales",
            Dtype::U8,
            &[experts, outputs, 1],
            &[127, 128, 126, 129, 127, 125],
        );
    let exponents = [0, 1, -1, 2, 0, -2];
    let read = Case::new(tensors, Value::Null).read().expect("reads");
    assert_eq!(read[0].0, "l.experts.down_proj");
    for (at, value) in read[0].1.iter().enumerate() {
        let (expert, input, output) = (at / 96, at / 3 % 32, at % 3);
        let scale = 2f32.powi(exponents[expert * outputs + output]);
        assert_eq!(*value, E2M1[code(expert, output, input)] * scale, "element {at}");
    }
}

#[test]
fn rule_30_rows_of_odd_multiples_of_32_are_as_their_formula_says() {
    for columns in [32, 96, 160] {
        let magnitudes: Vec<f32> = (0..3 * columns / 4).map(|at| 0.5 + at as f32 / 7.0).collect();
        let (tensors, _, expected) = nf4(&[3, columns], &magnitudes);
        let tensors = tensors.f32("a.weight.absmax", &[magnitudes.len()], &magnitudes);
        assert_eq!(Case::new(tensors, Value::Null).values(), expected, "{columns}");
    }
}

/// What a weight's values become when they are written and read back.
fn written(case: &Case, new: &[f32], scales: Scales) -> Vec<f32> {
    let checkpoint = Checkpoint::open(&case.path(), Access::Map).expect("opens");
    let weights = Weights::of(&checkpoint).expect("reads");
    let weight: &Weight = weights.quantised().next().expect("a quantised weight");
    let writing = Writing { scales, rounding: Rounding::Nearest };
    encode(weight, new, writing).values
}

#[test]
fn rule_15_numbers_beyond_the_largest_are_cut_to_it() {
    for (dtype, largest) in [(Dtype::F8_E4M3, 448.0), (Dtype::F8_E5M2, 57_344.0)] {
        let tensors = Tensors::new().raw("a.weight", dtype, &[1, 6], &[0; 6]);
        let case = Case::new(tensors, Value::Null);
        let new = [largest, 1.04 * largest, 1e6, -1e9, 1.0, 0.0];
        let expected = [largest, largest, largest, -largest, 1.0, 0.0];
        assert_eq!(written(&case, &new, Scales::Reuse), expected, "{dtype}");
    }
}

/// The ties of FP4, and the largest number, which makes the group's scale 1.
const TIES: [f32; 8] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0];

#[test]
fn rule_29_ties_go_where_the_package_has_them_go() {
    // compressed-tensors: to the even mantissa. 448 in E4M3 over the constant 448.
    let new: Vec<f32> = TIES.iter().flat_map(|value| [*value, -value]).collect();
    let tensors = Tensors::new()
        .raw("a.weight_packed", Dtype::U8, &[1, 8], &[0; 8])
        .raw("a.weight_scale", Dtype::F8_E4M3, &[1, 1], &[0x7e])
        .f32("a.weight_global_scale", &[1], &[448.0]);
    let even = [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0];
    let expected: Vec<f32> = even.iter().flat_map(|value: &f32| [*value, -value]).collect();
    assert_eq!(written(&Case::new(tensors, Value::Null), &new, Scales::Fresh), expected, "NVFP4");
    // gguf-py, OpenAI's experts: to the first of two that are as near, the smaller.
    let tensors = Tensors::new()
        .raw("a.experts.w_blocks", Dtype::U8, &[1, 1, 1, 16], &[0; 16])
        .raw("a.experts.w_scales", Dtype::U8, &[1, 1, 1], &[127]);
    let smaller = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let repeat = |values: [f32; 8]| values.repeat(4);
    let found = written(&Case::new(tensors, Value::Null), &repeat(TIES), Scales::Fresh);
    assert_eq!(found, repeat(smaller), "MXFP4");
    // Whole numbers: to the even one.
    let tensors = Tensors::new().raw("a.weight", Dtype::I8, &[1, 6], &[0; 6]).raw(
        "a.weight_scale",
        Dtype::BF16,
        &[1, 1],
        &brains(&[1.0]),
    );
    let found = written(
        &Case::new(tensors, Value::Null),
        &[0.5, 1.5, 2.5, -0.5, -1.5, 127.5],
        Scales::Reuse,
    );
    assert_eq!(found, [0.0, 2.0, 2.0, 0.0, -2.0, 127.0], "INT8");
}

#[test]
fn rule_28_fresh_scales_move_what_already_lies_on_a_grid() {
    // compressed-tensors' 4 bit: the largest code is 7, and the scale is made for 7.5.
    let codes = [-7i64, 7, 3, -1, 5, 2, -4, 6];
    let word = codes
        .iter()
        .enumerate()
        .fold(0u32, |word, (at, code)| word | ((code + 8) as u32) << (4 * at));
    let tensors = Tensors::new()
        .raw("a.weight_packed", Dtype::I32, &[1, 1], &words(&[word]))
        .raw("a.weight_shape", Dtype::I64, &[2], &[1i64, 8].map(i64::to_le_bytes).concat())
        .raw("a.weight_scale", Dtype::BF16, &[1, 1], &brains(&[1.0]));
    let case = Case::new(tensors, Value::Null);
    let before = case.values();
    assert_eq!(before, codes.map(|code| code as f32));
    assert_eq!(written(&case, &before, Scales::Reuse), before);
    let after = written(&case, &before, Scales::Fresh);
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
    let moved = norm(&mut before.iter().zip(&after).map(|(a, b)| a - b));
    let share = moved / norm(&mut before.iter().copied());
    assert!((0.02..0.15).contains(&share), "{share}");
}
