//! Methods that look at singular values and vectors, in a merge: a module at a time, wherever it lies in the base.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::PathBuf;

use crate::common::{Bench, Peft, Random, Tensors, lora_tool, read};

const QKV: &str = "double_blocks.0.img_attn.qkv.weight";
const WIDTH: usize = 5;
const METHODS: [&str; 4] = ["df-regmean", "tsv", "shared-basis", "iso-c"];

/// A kohya file of projections of 4 × 5 that lie in rows of a fused one, at rank 2.
fn projections(bench: &Bench, name: &str, seed: u64, parts: &str) -> PathBuf {
    let (mut random, mut file) = (Random::new(seed), Tensors::new());
    for part in parts.split(' ') {
        let module = format!("lora_unet_transformer_blocks_0_attn_to_{part}");
        file = file
            .f32(&format!("{module}.lora_down.weight"), &[2, WIDTH], &random.values(2 * WIDTH, 1.0))
            .f32(&format!("{module}.lora_up.weight"), &[4, 2], &random.values(8, 1.0));
    }
    file.save(&bench.path(&format!("{name}.safetensors")))
}

fn base(bench: &Bench) -> PathBuf {
    let weight = Random::new(9).values(12 * WIDTH, 1.0);
    Tensors::new().f32(QKV, &[12, WIDTH], &weight).save(&bench.path("base.safetensors"))
}

#[test]
fn modules_that_are_rows_of_one_tensor_are_combined_apart() {
    let bench = Bench::new();
    let base = base(&bench);
    let (a, b) = (projections(&bench, "a", 1, "q k v"), projections(&bench, "b", 2, "q k"));
    let sum = read(&bench.merge(&base, &[&a, &b], "-w 0.8 -0.5"))[QKV].values();
    for method in METHODS {
        let combined = bench.path(&format!("{method}.safetensors"));
        let mut command = lora_tool();
        command.arg("combine").args([&a, &b]).args(["--method", method, "-w", "0.8", "-0.5"]);
        command.arg("-o").arg(&combined).assert().success();
        let expected = read(&bench.merge(&base, &[&combined], ""))[QKV].values();
        let options = format!("--method {method} -w 0.8 -0.5 --verify");
        let found = read(&bench.merge(&base, &[&a, &b], &options))[QKV].values();
        let off =
            |other: &[f64]| found.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off(&expected) < 1e-5, "{method}: {}", off(&expected));
        assert!(method == "shared-basis" || off(&sum) > 1e-2, "{method} is not the sum");
    }
}

/// GPT-2 stores inputs × outputs, and what a method makes of outputs it makes of a module's outputs.
#[test]
fn modules_that_a_base_stores_turned_are_combined_the_way_round_that_they_are() {
    let bench = Bench::new();
    let (module, name) = ("transformer.h.0.mlp.c_fc", "h.0.mlp.c_fc.weight");
    let weight = Random::new(9).values(6 * 4, 1.0);
    let base = Tensors::new().f32(name, &[6, 4], &weight).save(&bench.path("base.safetensors"));
    let [a, b] = [1, 2].map(|seed| {
        let mut random = Random::new(seed);
        let (down, up) = (random.values(2 * 6, 1.0), random.values(4 * 2, 1.0));
        Peft::new(2, 2.0).linear(module, 2, &down, &up).save(&bench.path(&format!("{seed}")))
    });
    for method in ["df-regmean", "iso-cts", "tsv"] {
        let combined = bench.path(&format!("{method}-combined"));
        let mut command = lora_tool();
        command.arg("combine").args([&a, &b]).args(["--method", method]).arg("-o").arg(&combined);
        command.assert().success();
        let expected = read(&bench.merge(&base, &[&combined], ""))[name].values();
        let found =
            read(&bench.merge(&base, &[&a, &b], &format!("--method {method}")))[name].values();
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{method}: {found} {expected}");
        }
    }
}

#[test]
fn the_same_bytes_whatever_the_threads() {
    let bench = Bench::new();
    let base = base(&bench);
    let (a, b) = (projections(&bench, "a", 1, "q k v"), projections(&bench, "b", 2, "q k v"));
    for method in METHODS {
        let merge = |threads: usize| {
            let options = format!("--method {method} --threads {threads}");
            read(&bench.merge(&base, &[&a, &b], &options))[QKV].values()
        };
        assert_eq!(merge(1), merge(3), "{method}");
    }
}

#[test]
fn what_has_no_factors_is_refused() {
    let bench = Bench::new();
    let base = base(&bench);
    let a = projections(&bench, "a", 1, "q k v");
    let tuned = Random::new(4).values(12 * WIDTH, 1.0);
    let tuned =
        Tensors::new().f32(QKV, &[12, WIDTH], &tuned).save(&bench.path("tuned.safetensors"));
    let said = bench.refuse(&base, &[&a, &tuned], "--method tsv");
    assert!(
        said.contains(
            "a fine-tuned checkpoint has no factors of a small rank, which `tsv` looks at"
        ),
        "{said}"
    );
    let whole = Random::new(6).values(4 * WIDTH, 1.0);
    let module = "lora_unet_transformer_blocks_0_attn_to_q";
    let whole = Tensors::new().f32(&format!("{module}.diff"), &[4, WIDTH], &whole);
    let whole = whole.save(&bench.path("whole.safetensors"));
    let said = bench.refuse(&base, &[&a, &whole], "--method tsv");
    assert!(
        said.contains(" update has no factors of a small rank, which `tsv` looks at"),
        "{said}"
    );
}
