//! Rules that a naive reader of quantised weights breaks, each on a file of a few numbers whose values are worked out
//! by hand or by a plain formula.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::cast_possible_wrap, reason = "sizes of test data are small")]

use half::{bf16, f16};
use lora_tool::format::{Access, Checkpoint, Dtype};
use lora_tool::weight::Weights;
use serde_json::{Value, json};

use super::weights_refused::Case;
use crate::common::{Bench, Tensors};

pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(super) fn halves(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
}

pub(super) fn brains(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
}

fn integers(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Packs codes of `bits`, the first lowest, into words of 32 bits.
fn stream(codes: &[u32], bits: usize) -> Vec<u32> {
    let mut packed = vec![0; (codes.len() * bits).div_ceil(32)];
    for (at, code) in codes.iter().enumerate() {
        for bit in 0..bits {
            let place = at * bits + bit;
            packed[place / 32] |= (code >> bit & 1) << (place % 32);
        }
    }
    packed
}

/// E4M3 codes of 1, 2 and −1.5.
const ONE: u8 = 0x38;
const TWO: u8 = 0x40;
const MINUS: u8 = 0xbc;

#[test]
fn rule_1_a_scale_lies_in_another_shard() {
    let bench = Bench::new();
    let base = bench.path("base");
    Tensors::new()
        .raw("a.weight", Dtype::F8_E4M3, &[1, 2], &[ONE, TWO])
        .save(&base.join("model-00001-of-00002.safetensors"));
    Tensors::new()
        .f32("a.weight_scale_inv", &[1, 1], &[0.5])
        .save(&base.join("model-00002-of-00002.safetensors"));
    let weights =
        Weights::of(&Checkpoint::open(&base, Access::Map).expect("opens")).expect("reads");
    let mut values = [0.0; 2];
    weights.get("a.weight").expect("a weight").rows(0..1, &mut values).expect("decodes");
    assert_eq!(values, [0.5, 1.0]);
}

#[test]
fn rule_2_an_inverse_scale_is_multiplied() {
    let tensors = Tensors::new().raw("a.weight", Dtype::F8_E4M3, &[1, 2], &[TWO, MINUS]).f32(
        "a.weight_scale_inv",
        &[1, 1],
        &[4.0],
    );
    assert_eq!(Case::new(tensors, Value::Null).values(), [8.0, -6.0]);
}

/// One row of 16 numbers, the codes 0 to 15, group scale 2, and a constant of 4.
fn nvfp4(codes: (&str, &[u8]), constant: &str) -> Case {
    let tensors = Tensors::new()
        .raw(&format!("a.{}", codes.0), Dtype::U8, &[1, 8], codes.1)
        .raw("a.weight_scale", Dtype::F8_E4M3, &[1, 1], &[TWO])
        .f32(&format!("a.{constant}"), &[1], &[4.0]);
    Case::new(tensors, Value::Null)
}

const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
const LOW_FIRST: [u8; 8] = [0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe];

#[test]
fn rule_3_the_constant_of_nvfp4_divides_or_multiplies_and_rule_4_low_nibbles_come_first() {
    let divided = nvfp4(("weight_packed", &LOW_FIRST), "weight_global_scale").values();
    assert_eq!(divided, E2M1.map(|value| value * 0.5));
    let multiplied = nvfp4(("weight", &LOW_FIRST), "weight_scale_2").values();
    assert_eq!(multiplied, E2M1.map(|value| value * 8.0));
}

/// ComfyUI's NVFP4 of 16 × 128: scales in one tile, the high nibble first.
#[test]
fn rules_4_and_5_comfy_puts_the_high_nibble_first_and_scales_in_tiles() {
    let mut scales = vec![0u8; 128 * 8];
    for row in 0..16 {
        for column in 0..8 {
            let tile = column / 4 * 512 + row % 32 * 16 + row / 32 * 4 + column % 4;
            scales[tile] = 0x30 + (row + column) as u8;
        }
    }
    let format = br#"{"format":"nvfp4"}"#;
    let tensors = Tensors::new()
        .raw("a.weight", Dtype::U8, &[16, 64], &[0x24; 1024])
        .raw("a.weight_scale", Dtype::F8_E4M3, &[128, 8], &scales)
        .f32("a.weight_scale_2", &[], &[1.0])
        .raw("a.comfy_quant", Dtype::U8, &[format.len()], format);
    let values = Case::new(tensors, Value::Null).values();
    for (at, value) in values.iter().enumerate() {
        let code = 0x30 + (at / 128 + at % 128 / 16) as i32;
        let scale = (1.0 + f64::from(code & 7) / 8.0) * 2f64.powi((code >> 3) - 7);
        let number = if at % 2 == 0 { 1.0 } else { 2.0 };
        assert_eq!(f64::from(*value), scale * number, "element {at}");
    }
}

/// MXFP8 of ComfyUI, by the header's metadata, whose layers lack the prefix.
#[test]
fn comfys_metadata_describes_layers() {
    let mut scales = vec![127u8; 128 * 4];
    scales[16] = 129;
    let mut tensors = Tensors::new()
        .raw("model.diffusion_model.a.weight", Dtype::F8_E4M3, &[2, 32], &[ONE; 64])
        .raw("model.diffusion_model.a.weight_scale", Dtype::F8_E8M0, &[128, 4], &scales)
        .raw("model.diffusion_model.b.weight", Dtype::F8_E5M2, &[1, 2], &[0x3c, 0x40])
        .f32("model.diffusion_model.b.weight_scale", &[], &[3.0]);
    let layers = r#"{"layers":{"a":{"format":"mxfp8"},"b":{"format":"float8_e5m2"}}}"#;
    let metadata = [("_quantization_metadata".to_owned(), layers.to_owned())];
    tensors.metadata = Some(metadata.into_iter().collect());
    let read = Case::new(tensors, Value::Null).read().expect("reads");
    assert_eq!(read[0].1, [vec![1.0; 32], vec![4.0; 32]].concat());
    assert_eq!(read[1].1, [3.0, 6.0]);
}

/// compressed-tensors' packed integers: 3 rows of 10 columns, groups of 4, 4 and 2.
fn packed(bits: usize, zeros: bool, indices: Option<&[i32]>) -> (Case, Vec<f32>) {
    let (rows, columns, group) = (3usize, 10usize, 4usize);
    let half = 1i64 << (bits - 1);
    let per_word = 32 / bits;
    let groups = columns.div_ceil(group);
    let code = |row: usize, column: usize| (row * 7 + column * 5) as i64 % (2 * half) - half;
    let zero = |row: usize, group: usize| {
        if zeros { (row + 2 * group) as i64 % half - 1 } else { 0 }
    };
    let scale = |row: usize, group: usize| 0.25 + row as f32 + group as f32 * 0.5;
    let line = |codes: Vec<i64>| {
        let stored: Vec<u32> = codes.iter().map(|code| (code + half) as u32).collect();
        stored.chunks(per_word).flat_map(|word| stream(word, bits)).collect::<Vec<_>>()
    };
    let codes: Vec<u32> = (0..rows)
        .flat_map(|row| line((0..columns).map(|column| code(row, column)).collect()))
        .collect();
    let scales: Vec<f32> =
        (0..rows).flat_map(|row| (0..groups).map(move |group| scale(row, group))).collect();
    let mut tensors = Tensors::new()
        .raw("a.weight_packed", Dtype::I32, &[rows, columns.div_ceil(per_word)], &words(&codes))
        .raw("a.weight_shape", Dtype::I64, &[2], &integers(&[rows as i64, columns as i64]))
        .raw("a.weight_scale", Dtype::BF16, &[rows, groups], &brains(&scales));
    if zeros {
        // Down the rows: a word holds the zero points of several rows of one group.
        let stored: Vec<u32> = (0..groups)
            .flat_map(|group| line((0..rows).map(|row| zero(row, group)).collect()))
            .collect();
        let high = rows.div_ceil(per_word);
        let turned: Vec<u32> = (0..high)
            .flat_map(|word| (0..groups).map(move |group| (word, group)))
            .map(|(word, group)| stored[group * high + word])
            .collect();
        tensors = tensors.raw("a.weight_zero_point", Dtype::I32, &[high, groups], &words(&turned));
    }
    if let Some(indices) = indices {
        let bytes: Vec<u8> = indices.iter().flat_map(|index| index.to_le_bytes()).collect();
        tensors = tensors.raw("a.weight_g_idx", Dtype::I32, &[columns], &bytes);
    }
    let group_of = |column: usize| match indices {
        Some(indices) if indices[0] >= 0 => indices[column] as usize,
        _ => column / group,
    };
    let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let expected = places.map(|(row, column)| {
        let group = group_of(column);
        (code(row, column) - zero(row, group)) as f32 * scale(row, group)
    });
    let settings = json!({"num_bits": bits, "group_size": group, "strategy": "group"});
    let config = json!({
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": settings}},
    });
    (Case::new(tensors, config), expected.collect())
}

#[test]
fn rule_6_packed_codes_are_offset_binary_whatever_their_bits() {
    for bits in [2, 3, 4, 8] {
        let (case, expected) = packed(bits, false, None);
        assert_eq!(case.values(), expected, "{bits} bit");
    }
}

#[test]
fn rule_10_columns_keep_their_order_and_name_their_group() {
    let order = [2, 0, 1, 1, 0, 2, 0, 1, 0, 1];
    let (case, expected) = packed(4, true, Some(&order));
    assert_eq!(case.values(), expected);
    // −1 everywhere: the columns are in order.
    let (case, expected) = packed(4, false, Some(&[-1; 10]));
    assert_eq!(case.values(), expected);
    let (case, _) = packed(4, false, Some(&[0, 1, 2, 3, 0, 0, 0, 0, 0, 0]));
    case.refused("a.weight_g_idx", "column 3 names group 3, and there are 3");
}

#[test]
fn rule_11_zero_points_are_packed_down_the_rows() {
    for bits in [4, 8] {
        let (case, expected) = packed(bits, true, None);
        assert_eq!(case.values(), expected, "{bits} bit");
    }
}

/// GPTQ: 64 inputs, 32 outputs, two groups.
fn gptq(bits: usize, stored_zero: impl Fn(usize, usize) -> u32, config: Value) -> (Case, Vec<u32>) {
    let (inputs, outputs, groups) = (64usize, 32usize, 2usize);
    let code = |input: usize, output: usize| (input * 3 + output * 5) as u32 % (1 << bits);
    let mut rows = vec![0u32; inputs * bits / 32 * outputs];
    for output in 0..outputs {
        let codes: Vec<u32> = (0..inputs).map(|input| code(input, output)).collect();
        for (word, value) in stream(&codes, bits).into_iter().enumerate() {
            rows[word * outputs + output] = value;
        }
    }
    let zeros: Vec<u32> = (0..groups)
        .flat_map(|group| {
            stream(&(0..outputs).map(|o| stored_zero(group, o)).collect::<Vec<_>>(), bits)
        })
        .collect();
    let scales: Vec<f32> = (0..groups * outputs).map(|at| 0.5 + at as f32 / 64.0).collect();
    let indices: Vec<u8> =
        (0..inputs).flat_map(|input| ((input * 7 % 64 / 32) as i32).to_le_bytes()).collect();
    let tensors = Tensors::new()
        .raw("a.qweight", Dtype::I32, &[inputs * bits / 32, outputs], &words(&rows))
        .raw("a.qzeros", Dtype::I32, &[groups, outputs * bits / 32], &words(&zeros))
        .raw("a.scales", Dtype::F16, &[groups, outputs], &halves(&scales))
        .raw("a.g_idx", Dtype::I32, &[inputs], &indices);
    let codes =
        (0..outputs).flat_map(|o| (0..inputs).map(move |i| (i, o))).map(|(i, o)| code(i, o));
    (Case::new(tensors, config), codes.collect())
}

/// Values of [`gptq`] with these zero points: transposed, in activation order.
fn gptq_values(codes: &[u32], zero: impl Fn(usize, usize) -> i64) -> Vec<f32> {
    let value = |(at, code): (usize, &u32)| {
        let (output, input) = (at / 64, at % 64);
        let group = input * 7 % 64 / 32;
        let scale = 0.5 + (group * 32 + output) as f32 / 64.0;
        scale * (i64::from(*code) - zero(group, output)) as f32
    };
    codes.iter().enumerate().map(value).collect()
}

#[test]
fn rules_7_and_9_gptq_is_transposed_and_its_zero_points_tell_the_version() {
    for bits in [2, 3, 4, 8] {
        let middle = 1u32 << (bits - 1);
        let config =
            json!({"quant_method": "gptq", "bits": bits, "sym": true, "checkpoint_format": "gptq"});
        for stored in [middle, middle - 1] {
            let (case, codes) = gptq(bits, |_, _| stored, config.clone());
            assert_eq!(
                case.values(),
                gptq_values(&codes, |_, _| i64::from(middle)),
                "{bits}: {stored}"
            );
        }
    }
    let zero = |group: usize, output: usize| (group * 5 + output) as u32 % 14;
    let config = |format: &str| json!({"quant_method": "gptq", "bits": 4, "sym": false, "checkpoint_format": format});
    let (case, codes) = gptq(4, zero, config("gptq_v2"));
    assert_eq!(case.values(), gptq_values(&codes, |g, o| i64::from(zero(g, o))));
    let (case, codes) = gptq(4, zero, config("gptq"));
    assert_eq!(case.values(), gptq_values(&codes, |g, o| i64::from(zero(g, o)) + 1));
    let mut mislabelled = config("gptq");
    mislabelled["meta"] = json!({"quantizer": ["gptqmodel:5.0.0"]});
    gptq(4, zero, mislabelled).0.refused("a.qzeros", "nothing says which");
    let (one_off, _) = gptq(
        4,
        |g, o| if (g, o) == (1, 9) { 9 } else { 7 },
        json!({"quant_method": "gptq", "sym": true}),
    );
    one_off.refused("a.qzeros", "it is symmetric");
}

#[test]
fn rule_8_a_zero_point_that_two_readers_read_differently_is_refused() {
    let config =
        json!({"quant_method": "gptq", "bits": 4, "sym": false, "checkpoint_format": "gptq"});
    gptq(4, |_, output| if output == 3 { 15 } else { 4 }, config)
        .0
        .refused("a.qzeros", "stored as 15");
}

/// bitsandbytes, 3 × 5 and blocks of 4: blocks cross rows, the last byte is half used.
pub(super) fn nf4(shape: &[usize], magnitudes: &[f32]) -> (Tensors, Vec<u32>, Vec<f32>) {
    let elements: usize = shape.iter().product();
    let codes: Vec<u32> = (0..elements).map(|at| (at * 7 + 3) as u32 % 16).collect();
    let bytes: Vec<u8> = codes
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair.get(1).copied().unwrap_or(7)) as u8)
        .collect();
    let table: Vec<f32> = (0..16).map(|code| (code as f32 - 7.0) / 8.0).collect();
    let state = json!({"quant_type": "nf4", "blocksize": 4, "dtype": "bfloat16", "shape": shape,
        "nested_blocksize": 2, "nested_offset": 0.3, "nested_dtype": "float32"});
    let state = state.to_string();
    let tensors = Tensors::new()
        .raw("a.weight", Dtype::U8, &[bytes.len(), 1], &bytes)
        .f32("a.weight.quant_map", &[16], &table)
        .raw("a.weight.quant_state.bitsandbytes__nf4", Dtype::U8, &[state.len()], state.as_bytes());
    let values =
        codes.iter().enumerate().map(|(at, code)| table[*code as usize] * magnitudes[at / 4]);
    let values = values.collect();
    (tensors, codes, values)
}

#[test]
fn rules_4_and_12_blocks_of_bitsandbytes_cross_rows_and_stacks() {
    for shape in [&[3, 5][..], &[2, 3, 5], &[1, 31]] {
        let blocks = shape.iter().product::<usize>().div_ceil(4);
        let magnitudes: Vec<f32> = (0..blocks).map(|block| 1.0 + block as f32 / 3.0).collect();
        let (tensors, _, expected) = nf4(shape, &magnitudes);
        let case = Case::new(tensors.f32("a.weight.absmax", &[blocks], &magnitudes), Value::Null);
        assert_eq!(case.values(), expected, "{shape:?}");
        let weights = Weights::of(&Checkpoint::open(&case.path(), Access::Read).expect("opens"));
        let weight = weights.expect("reads").get("a.weight").expect("a weight").clone();
        assert_eq!(weight.shape, shape);
        let (rows, columns) = weight.matrix();
        for row in 0..rows {
            let mut values = vec![0.0; columns];
            weight.rows(row..row + 1, &mut values).expect("decodes");
            assert_eq!(values, expected[row * columns..][..columns], "row {row} of {shape:?}");
        }
    }
}

#[test]
fn rule_13_nested_magnitudes_are_map_times_scale_plus_offset() {
    let table: Vec<f32> = (0..256).map(|code| (code as f32 - 100.0) / 130.0).collect();
    let codes = [3u8, 250, 17, 99];
    let nested = [0.7f32, 1.9];
    let magnitudes: Vec<f32> = codes
        .iter()
        .enumerate()
        .map(|(block, code)| table[usize::from(*code)] * nested[block / 2] + 0.3f64 as f32)
        .collect();
    let (tensors, _, expected) = nf4(&[3, 5], &magnitudes);
    let tensors = tensors
        .raw("a.weight.absmax", Dtype::U8, &[4], &codes)
        .f32("a.weight.nested_absmax", &[2], &nested)
        .f32("a.weight.nested_quant_map", &[256], &table);
    assert_eq!(Case::new(tensors, Value::Null).values(), expected);
}

#[test]
fn rule_14_int8_of_bitsandbytes_rounds_twice() {
    let (codes, largest) = ([37u8, 0x81, 3, 99], [0.371_f32, 1.93]);
    let tensors =
        Tensors::new().raw("a.weight", Dtype::I8, &[2, 2], &codes).f32("a.SCB", &[2], &largest);
    let expected: Vec<f32> = codes
        .iter()
        .enumerate()
        .map(|(at, code)| f32::from(code.cast_signed()) * largest[at / 2] * 0.007_874_016)
        .collect();
    assert_eq!(Case::new(tensors, Value::Null).values(), expected);
}

#[test]
fn rule_16_powers_of_two_reach_subnormals() {
    for dtype in [Dtype::U8, Dtype::F8_E8M0] {
        let tensors = Tensors::new().raw("a.weight", Dtype::F8_E4M3, &[2, 64], &[ONE; 128]).raw(
            "a.weight_scale",
            dtype,
            &[2, 2],
            &[0, 1, 127, 254],
        );
        let values = Case::new(tensors, Value::Null).values();
        let scales = [2f64.powi(-127), 2f64.powi(-126), 1.0, 2f64.powi(127)];
        for (at, value) in values.iter().enumerate() {
            assert_eq!(f64::from(*value), scales[at / 32], "element {at}");
        }
    }
}

#[test]
fn rule_18_blocks_are_128_at_ragged_edges() {
    let (rows, columns) = (130usize, 129usize);
    let tensors = Tensors::new()
        .raw("a.weight", Dtype::F8_E4M3, &[2, rows, columns], &vec![ONE; 2 * rows * columns])
        .f32("a.weight_scale_inv", &[2, 2, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let values = Case::new(tensors, Value::Null).values();
    for (at, value) in values.iter().enumerate() {
        let (matrix, row, column) = (at / (rows * columns), at / columns % rows, at % columns);
        let expected = (matrix * 4 + row / 128 * 2 + column / 128 + 1) as f32;
        assert_eq!(*value, expected, "row {row}, column {column} of matrix {matrix}");
    }
}

#[test]
fn rule_19_scales_of_mlx_may_be_negative_and_codes_cross_words() {
    for bits in [2, 3, 4, 5, 6, 8] {
        let codes: Vec<u32> = (0..64).map(|at| (at * 11) % (1 << bits)).collect();
        let (scales, biases) = ([-0.25f32, 0.5], [3.0f32, -1.0]);
        let packed = stream(&codes, bits);
        let tensors = Tensors::new()
            .raw("a.weight", Dtype::U32, &[1, packed.len()], &words(&packed))
            .raw("a.scales", Dtype::BF16, &[1, 2], &brains(&scales))
            .raw("a.biases", Dtype::BF16, &[1, 2], &brains(&biases));
        let config = json!({"bits": bits, "group_size": 32});
        let expected: Vec<f32> =
            (0..64).map(|at| scales[at / 32] * codes[at] as f32 + biases[at / 32]).collect();
        assert_eq!(Case::new(tensors, config).values(), expected, "{bits} bit");
    }
}

#[test]
fn rules_23_and_15_a_plain_cast_is_one_only_where_nothing_is_scaled() {
    let plain = || Tensors::new().raw("a.weight", Dtype::F8_E4M3, &[1, 4], &[ONE, 1, 0x7e, 0x81]);
    let values = Case::new(plain(), Value::Null).values();
    assert_eq!(values, [1.0, 2f32.powi(-9), 448.0, -(2f32.powi(-9))]);
    let config = json!({"quant_method": "fp8"});
    Case::new(plain(), config).refused("a.weight", "the config says fp8");
    let other = plain().raw("b.weight", Dtype::F8_E4M3, &[1, 1], &[ONE]).f32(
        "b.weight_scale",
        &[1],
        &[1.0],
    );
    Case::new(other, Value::Null).refused("a.weight", "`b.weight_scale` for one");
    let special = Tensors::new().raw("a.weight", Dtype::F8_E5M2, &[1, 2], &[0x3c, 0x7c]);
    Case::new(special, Value::Null).refused("a.weight", "element 1");
}

#[test]
fn rule_24_scales_of_activations_go_and_those_of_the_cache_stay() {
    let tensors = Tensors::new()
        .raw("a.weight", Dtype::F8_E4M3, &[1, 1], &[ONE])
        .f32("a.weight_scale", &[], &[2.0])
        .f32("a.input_scale", &[], &[9.0])
        .f32("a.k_scale", &[], &[9.0]);
    let case = Case::new(tensors, Value::Null);
    let weights = Weights::of(&Checkpoint::open(&case.path(), Access::Map).expect("opens"));
    let weights = weights.expect("reads");
    let names: Vec<_> = weights.iter().map(|weight| weight.name.as_str()).collect();
    assert_eq!(names, ["a.k_scale", "a.weight"]);
    assert_eq!(case.values(), [2.0]);
}

#[test]
fn rule_27_the_config_may_be_the_text_models_own() {
    let tensors = Tensors::new().raw("a.weight", Dtype::F8_E4M3, &[2, 2], &[ONE; 4]).f32(
        "a.weight_scale_inv",
        &[2, 2],
        &[1.0, 2.0, 3.0, 4.0],
    );
    let mut case = Case::new(tensors, json!({}));
    let fields = json!({"quant_method": "fp8", "weight_block_size": [1, 1]});
    case.config = json!({"text_config": {"quantization_config": fields}});
    assert_eq!(case.values(), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn whole_numbers_with_zero_points_and_other_relatives() {
    let tensors = Tensors::new()
        .raw("a.weight", Dtype::I8, &[2, 2], &[5, 0xfb, 7, 0x80])
        .raw("a.weight_scale", Dtype::BF16, &[2, 1], &brains(&[0.5, 2.0]))
        .raw("a.weight_zero_point", Dtype::I8, &[2, 1], &[1, 0xff]);
    assert_eq!(Case::new(tensors, Value::Null).values(), [2.0, -3.0, 16.0, -254.0]);
    // DeepSeek-V4's experts: I8 bytes of two numbers, powers of two beside them.
    let codes: Vec<u8> = LOW_FIRST.iter().chain(&LOW_FIRST).copied().collect();
    let tensors = Tensors::new().raw("a.weight", Dtype::I8, &[1, 16], &codes).raw(
        "a.scale",
        Dtype::F8_E8M0,
        &[1, 1],
        &[128],
    );
    let expected = [E2M1, E2M1].concat().iter().map(|value| value * 2.0).collect::<Vec<_>>();
    assert_eq!(Case::new(tensors, Value::Null).values(), expected);
    let tensors = Tensors::new().raw("a.weight_packed", Dtype::U8, &[1, 16], &codes).raw(
        "a.weight_scale",
        Dtype::U8,
        &[1, 1],
        &[128],
    );
    assert_eq!(Case::new(tensors, Value::Null).values(), expected);
}
