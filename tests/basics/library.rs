//! The library's face: the numbers that it gives are those of plain f64 loops and of what a merge writes.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use lora_tool::{Adapter, Checkpoint, Dtype, OpenOptions, merge};

use crate::common::{Bench, Tensors, fixture};

const BASE: &str = "model.layers.0.self_attn.q_proj.weight";

/// scale · B · A by plain loops.
fn product(factors: &lora_tool::Factors) -> Vec<f64> {
    let mut delta = Vec::new();
    for row in 0..factors.out_features {
        for column in 0..factors.in_features {
            let terms = (0..factors.rank).map(|k| {
                factors.b[row * factors.rank + k] * factors.a[k * factors.in_features + column]
            });
            delta.push(factors.scale * terms.sum::<f64>());
        }
    }
    delta
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{found} for {expected}");
    }
}

#[test]
fn rows_of_an_update_are_the_product_of_its_factors() {
    let style = Adapter::open(fixture("llama/style")).expect("an adapter");
    assert_eq!(style.modules().len(), 14);
    for module in style.modules() {
        let factors = module.factors().expect("factors");
        let (out, features) = (module.out_features(), module.in_features());
        assert_eq!((factors.out_features, factors.rank, factors.in_features), (out, 8, features));
        assert_eq!(factors.scale, 2.0, "alpha 16 over rank 8");
        let all = product(&factors);
        close(&product(&factors.clone().folded()), &all, 1e-15);
        close(&module.delta_rows(0..out).expect("rows"), &all, 1e-12);
        let part = module.delta_rows(3..5).expect("rows");
        close(&part, &all[3 * features..5 * features], 1e-12);
        assert!(module.delta_rows(2..2).expect("none").is_empty());
        let beyond = module.delta_rows(0..out + 1).expect_err("rows that are not there");
        assert!(beyond.to_string().contains(module.name()), "{beyond}");
    }
}

#[test]
fn a_merge_adds_the_rows() {
    let bench = Bench::new();
    let out = bench.path("merged");
    let options = merge::Options::new(fixture("llama/base"), &out)
        .adapter(fixture("llama/style"), 0.5)
        .dtype(Dtype::F32);
    merge::run(&options).expect("a merge");
    let [base, merged] =
        [fixture("llama/base"), out].map(|path| Checkpoint::open(path).expect("it"));
    let rows = |file: &Checkpoint| file.tensor(BASE).expect("a weight").rows(8..24).expect("rows");
    let added = rows(&merged).into_iter().zip(rows(&base)).map(|(new, old)| f64::from(new - old));
    let style = Adapter::open(fixture("llama/style")).expect("an adapter");
    let module = style.module("model.layers.0.self_attn.q_proj").expect("the module");
    let delta = module.delta_rows(8..24).expect("rows");
    let expected: Vec<f64> = delta.iter().map(|value| value * 0.5).collect();
    close(&added.collect::<Vec<_>>(), &expected, 1e-7);
}

/// Products, differences stored whole, and updates that the weight goes into.
#[test]
fn other_families() {
    let bench = Bench::new();
    let save = |name: &str, tensors: Tensors| tensors.save(&bench.path(name));
    let key = |part: &str| format!("lora_unet_down_blocks_0_attentions_0_proj_in.{part}");
    // LoHa: (w1a · w1b) ⊙ (w2a · w2b), alpha = rank.
    let loha = Tensors::new()
        .f32(&key("hada_w1_a"), &[2, 1], &[1.0, 2.0])
        .f32(&key("hada_w1_b"), &[1, 3], &[1.0, -1.0, 0.5])
        .f32(&key("hada_w2_a"), &[2, 1], &[3.0, 0.25])
        .f32(&key("hada_w2_b"), &[1, 3], &[2.0, 1.0, 4.0])
        .f32(&key("alpha"), &[], &[1.0]);
    let loha = Adapter::open(save("loha.safetensors", loha)).expect("LoHa");
    let module = loha.modules().next().expect("a module");
    let expected = [6.0, -3.0, 6.0, 1.0, -0.5, 1.0];
    close(&module.delta_rows(0..2).expect("rows"), &expected, 1e-12);
    close(&module.delta_rows(1..2).expect("rows"), &expected[3..], 1e-12);
    close(&product(&module.factors().expect("factors")), &expected, 1e-12);
    // A difference stored whole has rows and no factors.
    let full = Tensors::new().f32(&key("diff"), &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let full = Adapter::open(save("full.safetensors", full)).expect("a difference");
    let module = full.modules().next().expect("a module");
    assert_eq!(module.delta_rows(1..2).expect("a row"), [4.0, 5.0, 6.0]);
    assert!(module.factors().is_err());
    // What is not finite is an error, with its tensor.
    let nan = Tensors::new()
        .f32(&key("lora_down.weight"), &[1, 3], &[1.0, f32::NAN, 1.0])
        .f32(&key("lora_up.weight"), &[2, 1], &[1.0, 1.0])
        .f32(&key("alpha"), &[], &[1.0]);
    let nan = Adapter::open(save("nan.safetensors", nan)).expect("it opens");
    let module = nan.modules().next().expect("a module");
    for error in [module.factors().err(), module.delta_rows(0..1).err()] {
        assert!(error.expect("an error").to_string().contains("NaN"));
    }
}

#[test]
fn what_a_file_does_not_say_is_told() {
    let bench = Bench::new();
    let bare = bench.path("bare.safetensors");
    std::fs::copy(fixture("llama/style/adapter_model.safetensors"), &bare).expect("copied");
    assert!(Adapter::open(&bare).is_err(), "its scale is unknown");
    let scale = |options: OpenOptions| {
        let adapter = Adapter::open_with(&bare, &options).expect("it opens");
        adapter.modules().next().map(|module| module.scale())
    };
    assert_eq!(scale(OpenOptions::new().alpha(4.0)), Some(0.5));
    assert_eq!(scale(OpenOptions::new().scale(3.0)), Some(3.0));
    let root = scale(OpenOptions::new().alpha(4.0).rslora(true)).expect("a module");
    assert!((root - 4.0 / 8f64.sqrt()).abs() < 1e-15);
    assert!(OpenOptions::new().orientation("nothing").is_err());
    assert!(merge::Options::new("base", "out").include("(").is_err());
}
