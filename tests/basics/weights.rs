//! Quantised bases made by the packages themselves: every weight decodes to the package's own values, bit for bit,
//! in whatever panels it is read.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use lora_tool::format::{Access, Checkpoint};
use lora_tool::weight::{self, Weight, Weights};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::fixture;
use crate::common::quant::{base, decoded};

/// Name, shape and SHA-256 of the f32 bytes.
fn expected(case: &str) -> Vec<(String, Vec<usize>, String)> {
    let text = std::fs::read(fixture("quant").join(case).join("dequantised.json")).expect("a file");
    let values: Value = serde_json::from_slice(&text).expect("JSON");
    let tensors = values.as_object().expect("an object").iter();
    let tensor = |(name, told): (&String, &Value)| {
        let shape = told["shape"].as_array().expect("a shape").iter();
        let shape = shape.map(|size| size.as_u64().expect("a size") as usize).collect();
        (name.clone(), shape, told["sha256"].as_str().expect("a digest").to_owned())
    };
    tensors.map(tensor).collect()
}

fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// All rows of a weight, `panel` at a time.
fn bytes(weight: &Weight, panel: usize) -> Vec<u8> {
    let (rows, columns) = weight.matrix();
    let mut bytes = Vec::new();
    for first in (0..rows).step_by(panel.max(1)) {
        let end = (first + panel).min(rows);
        let mut values = vec![f32::NAN; (end - first) * columns];
        weight.rows(first..end, &mut values).expect("decodes");
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

#[test]
fn every_weight_is_the_packages_own() {
    for case in decoded() {
        for access in [Access::Map, Access::Read] {
            let checkpoint = Checkpoint::open(&base(case), access).expect(case);
            let weights =
                Weights::of(&checkpoint).unwrap_or_else(|error| panic!("{case}: {error}"));
            for (name, shape, sha) in expected(case) {
                let weight = weights.get(&name).or_else(|| weights.get(&format!("{name}.weight")));
                let weight = weight.unwrap_or_else(|| panic!("{case}: no {name}"));
                assert_eq!(weight.shape, shape, "{case}: {name}");
                let (rows, _) = weight.matrix();
                for panel in [rows, weight.grain(), 7] {
                    assert_eq!(
                        digest(&bytes(weight, panel)),
                        sha,
                        "{case}: {name} by {panel} rows"
                    );
                }
            }
        }
    }
}

#[test]
fn a_decoded_checkpoint_holds_the_same_numbers_and_no_companions() {
    for case in decoded() {
        let checkpoint = weight::open(&base(case), Access::Map).expect(case);
        for (name, shape, sha) in expected(case) {
            let weight = format!("{name}.weight");
            let view =
                checkpoint.tensor(&name).or_else(|| checkpoint.tensor(&weight)).expect(&name);
            assert_eq!(view.spec.shape, shape, "{case}: {name}");
            if view.spec.dtype != lora_tool::format::Dtype::F32 {
                continue;
            }
            let mut scratch = Vec::new();
            assert_eq!(digest(view.all(&mut scratch).expect("decodes")), sha, "{case}: {name}");
            let whole = view.all(&mut scratch).expect("decodes").to_vec();
            let (first, end) = (whole.len() / 3, whole.len() / 3 + 1001.min(whole.len() / 2));
            let part = view.bytes(first as u64..end as u64, &mut scratch).expect("decodes");
            assert_eq!(part, &whole[first..end], "{case}: bytes {first}..{end} of {name}");
        }
        let left = checkpoint.names().find(|name| {
            let endings = [
                "scale",
                "scale_inv",
                "scales",
                "_packed",
                "absmax",
                "SCB",
                "qzeros",
                "scaled_fp8",
            ];
            !name.ends_with("k_scale") && endings.iter().any(|ending| name.ends_with(ending))
        });
        assert_eq!(left, None, "{case}");
    }
}

#[test]
fn a_weight_says_what_it_is_stored_as() {
    let told = |case: &str, name: &str| {
        let checkpoint = Checkpoint::open(&base(case), Access::Map).expect(case);
        let weights = Weights::of(&checkpoint).expect(case);
        let weight = weights.get(name).expect(name);
        (weight.encoding, weight.detail.clone(), (weight.bits() * 100.0).round() / 100.0)
    };
    let q_proj = "model.layers.0.self_attn.q_proj.weight";
    let row = |encoding: &'static str, detail: &str, bits: f64| (encoding, detail.to_owned(), bits);
    assert_eq!(told("int4_sym_g32_ct", q_proj), row("int_packed", "4 bit, groups of 32", 4.51));
    assert_eq!(
        told("fp8_block128_ragged", q_proj),
        row("fp8_block", "F8_E4M3, blocks of 128×128", 8.0)
    );
    assert_eq!(told("bnb_nf4_nested", q_proj), row("bnb_4bit", "NF4, blocks of 64, nested", 4.51));
    assert_eq!(told("gptq_v1_sym", q_proj).0, "gptq");
    assert_eq!(told("awq_gemm", q_proj).0, "awq");
    assert_eq!(told("gguf_llama_q8q4", "blk.0.attn_q.weight").0, "ggml");
    let v_proj = "model.layers.0.self_attn.v_proj.weight";
    assert_eq!(told("int4_sym_g32_ct", v_proj), row("plain", "BF16", 16.0));
}
