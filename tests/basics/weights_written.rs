//! Weights written back as they were stored: the packages' own codes and scales for new values, and the laws of every
//! encoding.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use lora_tool::format::{Access, Checkpoint, Dtype};
use lora_tool::weight::{Part, Rounding, Scales, Weight, Weights, Writing, Written};
use serde_json::Value;

use crate::common::quant::base;
use crate::common::{Bench, Read, Tensors, fixture, read};

/// Cases of `fixtures/quant`, with the bits of a code and the largest error, as a share of a row's largest magnitude, of
/// a value that is rounded to the nearest.
const CASES: [(&str, usize, f64); 29] = [
    ("awq_gemm", 4, 0.07),
    ("bnb_fp4_plain", 4, 0.18),
    ("bnb_int8", 8, 0.005),
    ("bnb_nf4_nested", 4, 0.16),
    ("comfy_quant_fp8_new", 8, 0.036),
    ("comfy_scaled_fp8_old", 8, 0.036),
    ("fp8_block128_ragged", 8, 0.036),
    ("fp8_block_ct", 8, 0.036),
    ("fp8_plain_e4m3fn", 8, 0.063),
    ("fp8_row_fbgemm", 8, 0.036),
    ("fp8_tensor_ct", 8, 0.036),
    ("fp8_tensor_modelopt", 8, 0.036),
    ("gptq_v1_sym", 4, 0.07),
    ("int4_sym_g32_ct", 4, 0.07),
    ("int8_channel_ct", 8, 0.008),
    ("mlx_q4_g64", 4, 0.07),
    // A group's largest value is cut to 6 steps of up to 8.
    ("mxfp4_gptoss", 4, 0.26),
    ("nvfp4_ct", 4, 0.18),
    ("bnb_nf4_nested_experts_odd", 4, 0.16),
    ("comfy_metadata_e5m2", 8, 0.072),
    // The largest code lies anywhere from half of 448 to it.
    ("fp8_block_ue8m0_experts", 8, 0.063),
    ("fp8_plain_e5m2", 8, 0.125),
    ("gptq_v2_asym_actorder", 4, 0.07),
    ("int4_asym_gidx_ct", 4, 0.07),
    ("int8_asym_channel_ct", 8, 0.005),
    ("int8_pack_channel_ragged_ct", 8, 0.008),
    ("mlx_q3_g32", 8, 0.15),
    ("mlx_q6_g64", 8, 0.03),
    ("nvfp4_modelopt", 4, 0.18),
];

pub(super) fn weights(path: &Path) -> Weights {
    let checkpoint = Checkpoint::open(path, Access::Map).expect("opens");
    Weights::of(&checkpoint).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(super) fn values(weight: &Weight) -> Vec<f32> {
    let (rows, columns) = weight.matrix();
    let mut values = vec![f32::NAN; rows * columns];
    weight.rows(0..rows, &mut values).expect("decodes");
    values
}

pub(super) fn encode(weight: &Weight, values: &[f32], writing: Writing) -> Written {
    let columns = weight.matrix().1;
    let mut rows = |rows: std::ops::Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&values[rows.start * columns..rows.end * columns]);
        Ok(())
    };
    weight.encode(writing, &mut rows).expect("encodes").expect("a writer is known")
}

/// The base with some of its tensors written anew.
fn saved(bench: &Bench, case: &str, parts: &[(Part, Vec<u8>)], to: &str) -> PathBuf {
    let from = base(case);
    let mut tensors = Tensors::new();
    for (name, old) in read(&from) {
        let new = parts.iter().find(|(part, _)| part.name == name);
        tensors = match new {
            Some((part, bytes)) => tensors.raw(&name, part.dtype, &part.shape, bytes),
            None => tensors.raw(&name, old.dtype, &old.shape, &old.bytes),
        };
    }
    let directory = bench.path(to);
    let file = tensors.save(&directory.join("model.safetensors"));
    if from.is_file() {
        return file;
    }
    std::fs::copy(from.join("config.json"), directory.join("config.json")).expect("copied");
    directory
}

/// Quantised matrices of a case, which have columns.
fn quantised(weights: &Weights) -> impl Iterator<Item = &Weight> {
    weights.quantised().filter(|weight| weight.shape.len() > 1)
}

/// How many codes of some bits differ.
fn differing(found: &[u8], expected: &[u8], bits: usize) -> usize {
    let pairs = found.iter().zip(expected).map(|(a, b)| a ^ b);
    match bits {
        8 => pairs.filter(|differs| *differs != 0).count(),
        _ => pairs.map(|d| usize::from(d & 15 != 0) + usize::from(d >> 4 != 0)).sum(),
    }
}

fn check_companion(case: &str, found: (&Part, &[u8]), expected: &Read) {
    let name = &found.0.name;
    if name.contains("quant_state") {
        let parse = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).expect("JSON") };
        let (mut found, mut expected) = (parse(found.1), parse(&expected.bytes));
        let offset = |state: &mut Value| {
            let fields = state.as_object_mut().expect("an object");
            fields.remove("nested_offset").and_then(|offset| offset.as_f64()).expect("a number")
        };
        let (a, b) = (offset(&mut found), offset(&mut expected));
        assert!((a - b).abs() <= 1e-6 * b.abs(), "{case}: {name}: {a}, {b}");
        assert_eq!(found, expected, "{case}: {name}");
        return;
    }
    assert_eq!((found.0.dtype, &found.0.shape), (expected.dtype, &expected.shape), "{name}");
    let pairs = found.1.iter().zip(&expected.bytes);
    match expected.dtype {
        Dtype::F32 => {
            let number = |bytes: &[u8]| -> Vec<f32> {
                let words = bytes.as_chunks::<4>().0;
                words.iter().map(|word| f32::from_le_bytes(*word)).collect()
            };
            for (a, b) in number(found.1).into_iter().zip(number(&expected.bytes)) {
                assert!((a - b).abs() <= 1e-6 * b.abs(), "{case}: {name}: {a}, {b}");
            }
        }
        // Nested magnitudes: near the middle of two numbers the package's kernel takes either (its own values are off
        // by up to 1e-5 of the largest), and by 0 the numbers lie closer than that.
        Dtype::U8 if name.ends_with("absmax") => {
            let apart: Vec<u8> = pairs.map(|(a, b)| a.abs_diff(*b)).filter(|d| *d > 0).collect();
            assert!(apart.len() * 25 <= expected.bytes.len(), "{case}: {name}: {apart:?}");
            assert!(apart.iter().all(|apart| *apart <= 2), "{case}: {name}: {apart:?}");
        }
        _ => assert_eq!(pairs.filter(|(a, b)| a != b).count(), 0, "{case}: {name}"),
    }
}

#[test]
fn new_values_become_the_packages_own_codes() {
    let bench = Bench::new();
    for (case, bits, _) in CASES {
        let adapter = fixture("quant").join(case).join("adapter");
        let merged = read(&bench.merge(&base(case), &[&adapter], "--dtype f32"));
        let expected = read(&fixture("quant").join(case).join("requantised.safetensors"));
        let mut compared = 0;
        for weight in weights(&base(case)).quantised() {
            if !expected.contains_key(&weight.parts[0].name) {
                continue;
            }
            let new: Vec<f32> =
                merged[&weight.name].values().iter().map(|value| *value as f32).collect();
            let parts = encode(weight, &new, Writing::default()).parts;
            for (at, (part, bytes)) in parts.iter().enumerate() {
                let expected = &expected[&part.name];
                compared += 1;
                if at > 0 {
                    check_companion(case, (part, bytes), expected);
                    continue;
                }
                let same = (part.dtype, &part.shape) == (expected.dtype, &expected.shape);
                assert!(same, "{case}: {}", part.name);
                let wrong = differing(bytes, &expected.bytes, bits);
                let codes = bytes.len() * 8 / bits;
                assert!(wrong * 500 <= codes, "{case}: {}: {wrong} of {codes}", part.name);
            }
        }
        assert!(compared > 0, "{case}");
    }
}

fn writings() -> [Writing; 4] {
    let stochastic = Rounding::Stochastic { seed: 7 };
    [(Scales::Fresh, Rounding::Nearest), (Scales::Fresh, stochastic)]
        .into_iter()
        .chain([(Scales::Reuse, Rounding::Nearest), (Scales::Reuse, stochastic)])
        .map(|(scales, rounding)| Writing { scales, rounding })
        .collect::<Vec<_>>()
        .try_into()
        .expect("four")
}

#[test]
fn what_lies_on_the_grid_stays_there_with_its_own_scales() {
    for (case, ..) in CASES {
        let weights = weights(&base(case));
        for weight in quantised(&weights) {
            let before = values(weight);
            let reuse = Writing { scales: Scales::Reuse, ..Writing::default() };
            let Written { parts, values: after } = encode(weight, &before, reuse);
            assert_eq!(parts.len(), 1, "{case}: {}: only codes are written", weight.name);
            let wrong = before.iter().zip(&after).filter(|(a, b)| a != b).count();
            assert_eq!(wrong, 0, "{case}: {} of {}", weight.name, before.len());
        }
    }
}

/// Values that lie on no grid.
fn moved(weight: &Weight) -> Vec<f32> {
    let before = values(weight);
    let most = before.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
    let part = |at: usize| ((at * 7919) % 1009) as f32 / 1009.0 - 0.5;
    before.iter().enumerate().map(|(at, value)| value + 0.1 * most * part(at)).collect()
}

#[test]
fn what_is_written_is_what_will_be_read_and_as_near_as_the_format_allows() {
    let bench = Bench::new();
    for (case, _, bound) in CASES {
        let weights_before = weights(&base(case));
        for (number, writing) in writings().into_iter().enumerate() {
            let mut all = Vec::new();
            let mut expected = Vec::new();
            for weight in quantised(&weights_before) {
                let new = moved(weight);
                let Written { parts, values: read } = encode(weight, &new, writing);
                let again = encode(weight, &new, writing).parts;
                assert!(parts == again, "{case}: {}: other bytes the second time", weight.name);
                all.extend(parts);
                expected.push((weight.name.clone(), new, read));
            }
            let path = saved(&bench, case, &all, &format!("{case}-{number}"));
            let after = weights(&path);
            for (name, new, read) in expected {
                let weight = after.get(&name).expect(&name);
                let found = values(weight);
                let wrong = found.iter().zip(&read).filter(|(a, b)| a != b).count();
                assert_eq!(wrong, 0, "{case}: {name}: {writing:?}: of {}", found.len());
                if writing.scales == Scales::Reuse {
                    continue;
                }
                let bound = match writing.rounding {
                    Rounding::Nearest => bound,
                    Rounding::Stochastic { .. } => 2.0 * bound,
                };
                // Blocks of fp8 and bitsandbytes cross rows: the whole tensor's magnitude bounds all.
                let most = new.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
                let off = new.iter().zip(&found).map(|(a, b)| f64::from((a - b).abs()));
                let off = off.fold(0.0, f64::max);
                assert!(off <= bound * f64::from(most), "{case}: {name}: {writing:?}: {off}");
            }
        }
    }
}

#[test]
fn random_rounding_keeps_small_changes_on_average() {
    for (case, ..) in CASES {
        let weights = weights(&base(case));
        for weight in quantised(&weights).filter(|weight| weight.elements() > 9000) {
            let before = values(weight);
            let most = before.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
            // Half of it up by a two-hundredth of the largest, half down: far below a step of 4 bits.
            let delta = |at: usize| if at.is_multiple_of(2) { most / 200.0 } else { -most / 200.0 };
            // The largest values would be cut.
            let inner = |value: f32| value.abs() < 0.5 * most;
            let new: Vec<f32> =
                before.iter().enumerate().map(|(at, value)| value + delta(at)).collect();
            let gain = |seed: u64| {
                let rounding = Rounding::Stochastic { seed };
                let writing = Writing { scales: Scales::Reuse, rounding };
                let after = encode(weight, &new, writing).values;
                let kept = before.iter().zip(&after).enumerate();
                let kept = kept.filter(|(_, (before, _))| inner(**before));
                let sums = kept.fold((0.0, 0.0), |sums, (at, (before, after))| {
                    let delta = f64::from(delta(at));
                    (sums.0 + f64::from(after - before) * delta, sums.1 + delta * delta)
                });
                sums.0 / sums.1
            };
            let mean = (0..4).map(gain).sum::<f64>() / 4.0;
            assert!((0.8..1.2).contains(&mean), "{case}: {}: {mean}", weight.name);
        }
    }
}

#[test]
fn blocks_of_ggml_are_the_reference_writers_byte_for_byte() {
    blocks_are_the_reference_writers("ggml_written", 5);
    blocks_are_the_reference_writers("ggml_searched", 11);
}

fn blocks_are_the_reference_writers(case: &str, types: usize) {
    let file = fixture(&format!("quant/{case}/model.gguf"));
    let checkpoint = Checkpoint::open(&file, Access::Map).expect("opens");
    let mut scratch = Vec::new();
    let values = checkpoint.tensor("values.weight").expect("the values").all(&mut scratch);
    let values: Vec<f32> = values
        .expect("read")
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes(four.try_into().expect("four bytes")))
        .collect();
    let weights = Weights::of(&checkpoint).expect("weights");
    let mut written = 0;
    for weight in weights.quantised() {
        let expected = checkpoint.tensor(&weight.name).expect("a tensor");
        let found = encode(weight, &values, Writing::default());
        let mut scratch = Vec::new();
        let expected = expected.all(&mut scratch).expect("read");
        let wrong = found.parts[0].1.iter().zip(expected).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "{}", weight.name);
        written += 1;
    }
    assert_eq!(written, types);
}
