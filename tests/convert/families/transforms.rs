//! Families whose update depends on the weight: scalings, rotations, reflections.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use super::case::{Case, config};
use crate::common::dense::Dense;
use crate::common::formulas::{
    block_diagonal, blocks, diagonal, hadamard, identity, kronecker, permutation, rotation, skew,
    skew_of,
};
use crate::common::{Bench, Tensors, lora_tool, read};
use serde_json::json;

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
