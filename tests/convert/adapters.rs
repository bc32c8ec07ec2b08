//! What adapters mean: conventions, configs, weights, filters, biases. All numbers are small and
//! whole, so that every result is exact.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use crate::common::{Bench, Peft, Tensors, read};
use lora_tool::format::Dtype;
use serde_json::json;

/// Every weight of these bases, 3 × 2.
const W: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
/// The product of the factors that [`factors`] gives.
const U: [f64; 6] = [1.0, -1.0, 2.0, -2.0, 3.0, -3.0];
/// A (rank × 2) and B (3 × rank) with B · A = U.
fn factors(rank: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut down, mut up) = (vec![0.0; 2 * rank], vec![0.0; 3 * rank]);
    down[..2].copy_from_slice(&[1.0, -1.0]);
    for row in 0..3 {
        up[row * rank] = row as f32 + 1.0;
    }
    (down, up)
}

fn with_linear(adapter: Peft, module: &str, rank: usize) -> Peft {
    let (down, up) = factors(rank);
    adapter.linear(module, rank, &down, &up)
}

/// A base of 3 × 2 weights.
struct World {
    bench: Bench,
    base: PathBuf,
}

impl World {
    fn new(modules: &[&str]) -> Self {
        let bench = Bench::new();
        let weight =
            |file: Tensors, module: &&str| file.f32(&format!("{module}.weight"), &[3, 2], &W);
        let base = modules.iter().fold(Tensors::new(), weight);
        let base = base.save(&bench.path("base/model.safetensors"));
        Self { bench, base }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bench.path(name)
    }

    fn peft(&self, adapter: &Peft) -> PathBuf {
        adapter.save(&self.path("adapter"))
    }

    /// How much of U each weight has got. Every element has to agree.
    fn applied(&self, adapter: &Path, options: &str) -> Vec<(String, f64)> {
        let merged = read(&self.bench.merge(&self.base, &[adapter], options));
        let weights = merged.iter().filter(|(_, tensor)| tensor.shape == [3, 2]);
        weights.map(|(name, tensor)| (name.clone(), part_of_u(&tensor.values()))).collect()
    }
}

fn part_of_u(values: &[f64]) -> f64 {
    let part = values[0] - f64::from(W[0]);
    let exact: Vec<f64> = W.iter().zip(U).map(|(w, u)| f64::from(*w) + part * u).collect();
    assert_eq!(values, exact, "W + {part} · U");
    part
}

fn parts(expected: &[(&str, f64)]) -> Vec<(String, f64)> {
    expected.iter().map(|(module, part)| (format!("{module}.weight"), *part)).collect()
}

#[test]
fn the_first_matching_pattern_gives_rank_and_alpha() {
    let world = World::new(&["layers.0.q", "layers.0.v", "layers.1.q", "layers.1.vq"]);
    let config = Peft::new(8, 24.0)
        .field("rank_pattern", json!({"layers.0.q": 2, "q": 4}))
        .field("alpha_pattern", json!({"q": 16, "layers.0.q": 1000, "layers\\.\\d\\.v": 40}));
    let adapter = with_linear(with_linear(config, "layers.0.q", 2), "layers.1.q", 4);
    let adapter = with_linear(with_linear(adapter, "layers.0.v", 8), "layers.1.vq", 8);
    let expected =
        [("layers.0.q", 8.0), ("layers.0.v", 5.0), ("layers.1.q", 4.0), ("layers.1.vq", 3.0)];
    assert_eq!(world.applied(&world.peft(&adapter), ""), parts(&expected));
    // The same with the root of the rank: of 4 only, here.
    let adapter = with_linear(Peft::new(4, 6.0).field("use_rslora", true), "layers.0.q", 4);
    let applied = world.applied(&world.peft(&adapter), "--include layers.0.q");
    assert_eq!(applied[0].1, 3.0);
    // Factors of another rank than the config's are from another run.
    let adapter = world.peft(&with_linear(Peft::new(4, 6.0), "layers.0.q", 2));
    let said = world.bench.refuse(&world.base, &[&adapter], "");
    assert!(said.contains("rank 2") && said.contains("config says 4"), "{said}");
}

#[test]
fn weights_multiply_and_filters_leave_out() {
    let modules = ["layers.0.q", "layers.0.v", "layers.1.q", "layers.1.v"];
    let world = World::new(&modules);
    let adapter = modules.iter().fold(Peft::new(1, 2.0), |adapter, m| with_linear(adapter, m, 1));
    let adapter = world.peft(&adapter);
    let cases = [
        ("", [2.0, 2.0, 2.0, 2.0]),
        ("-w 0.5", [1.0, 1.0, 1.0, 1.0]),
        ("-w -1.5", [-3.0, -3.0, -3.0, -3.0]),
        ("--module-weight layers.0=0.5 --module-weight q=3", [6.0, 1.0, 6.0, 2.0]),
        ("--module-weight q=3 --module-weight layers.0=0.5", [1.0, 1.0, 6.0, 2.0]),
        ("-w 2 --module-weight q$=0 --module-weight v.weight=-1", [0.0, -4.0, 0.0, -4.0]),
        ("--include q$", [2.0, 0.0, 2.0, 0.0]),
        ("--include q$ --exclude layers.1", [2.0, 0.0, 0.0, 0.0]),
        ("--exclude 1.v -w 3", [6.0, 6.0, 6.0, 0.0]),
    ];
    for (options, expected) in cases {
        let expected: Vec<_> = modules.into_iter().zip(expected).collect();
        assert_eq!(world.applied(&adapter, options), parts(&expected), "{options}");
    }
    let carrying = |weight: &str| PathBuf::from(format!("{}:{weight}", adapter.display()));
    let applied = world.applied(&carrying("-0.5"), "--include 0.q");
    assert_eq!(applied[0].1, -1.0);
    for (adapter, options) in [
        (carrying("0.5"), "-w 0.5"),
        (adapter.clone(), "-w 1 2"),
        (adapter.clone(), "-w nan"),
        (adapter.clone(), "--include k_proj"),
        (adapter.clone(), "--exclude ."),
    ] {
        world.bench.refuse(&world.base, &[&adapter], options);
    }
}

#[test]
fn one_file_is_read_in_every_spelling() {
    const SPELLINGS: [(&str, &str); 10] = [
        (".lora_down.weight", ".lora_up.weight"),
        (".lora_A.weight", ".lora_B.weight"),
        (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
        (".lora.down.weight", ".lora.up.weight"),
        ("_lora.down.weight", "_lora.up.weight"),
        (".lora_A.default.weight", ".lora_B.default.weight"),
        (".lora_down", ".lora_up"),
        (".lora_A", ".lora_B"),
        ("_lora.down", "_lora.up"),
        (".lora.down", ".lora.up"),
    ];
    let world = World::new(&["blocks.0.to_q", "blocks.0.ff.net_2"]);
    let (down, up) = factors(4);
    let modules =
        ["lora_unet_blocks_0_to_q", "lycoris_blocks_0_to_q", "blocks_0_to_q", "blocks.0.to_q"];
    for (number, (down_ending, up_ending)) in SPELLINGS.into_iter().enumerate() {
        for (at, module) in modules.into_iter().enumerate() {
            let file = Tensors::new().f32(&format!("{module}{down_ending}"), &[4, 2], &down).f32(
                &format!("{module}{up_ending}"),
                &[3, 4],
                &up,
            );
            let alpha = format!("{module}.alpha");
            let (file, scale) = match (number + at) % 4 {
                0 => (file, 1.0),
                1 => (file.f32(&alpha, &[], &[8.0]), 2.0),
                2 => (file.float(&alpha, Dtype::BF16, &[1], &[2.0]), 0.5),
                _ => (file.raw(&alpha, Dtype::I64, &[], &12i64.to_le_bytes()), 3.0),
            };
            let adapter = file.save(&world.path("adapter.safetensors"));
            let expected = parts(&[("blocks.0.ff.net_2", 0.0), ("blocks.0.to_q", scale)]);
            assert_eq!(world.applied(&adapter, ""), expected, "{module}{down_ending}");
        }
    }
}

#[test]
fn prefixes_and_leaked_names_do_not_matter() {
    let cases = [
        ("base_model.model.bert.encoder.layer.0.q.lora_A.weight", "encoder.layer.0.q"),
        ("base_model.model.encoder.layer.0.q.lora_A.weight", "bert.encoder.layer.0.q"),
        ("base_model.model.model.layers.0.q.lora_A.weight", "layers.0.q"),
        ("base_model.model.layers.0.q.lora_A.weight", "model.layers.0.q"),
        ("base_model.model.model.layers.0.q.lora_A.weight", "model.language_model.layers.0.q"),
        ("base_model.model._orig_mod.model.layers.0.q.lora_A.weight", "model.layers.0.q"),
        ("base_model.model.model.layers.0.q.lora_A.default.weight", "model.layers.0.q"),
        ("module.base_model.model.model.layers.0.q.lora_A.weight", "model.layers.0.q"),
        (
            "base_model.model.model.layers.0._fsdp_wrapped_module.q.lora_A.weight",
            "model.layers.0.q",
        ),
        ("base_model.model.model.layers.0.q.base_layer.lora_A.weight", "model.layers.0.q"),
        ("model.layers.0.q.lora_A.weight", "model.layers.0.q"),
    ];
    let (down, up) = factors(1);
    for (key, module) in cases {
        let world = World::new(&[module, "other.0.q"]);
        let mut adapter = Peft::new(1, 2.0);
        adapter.tensors = Tensors::new().f32(key, &[1, 2], &down).f32(
            &key.replace("lora_A", "lora_B"),
            &[3, 1],
            &up,
        );
        let applied = world.applied(&world.peft(&adapter), "");
        assert!(applied.contains(&(format!("{module}.weight"), 2.0)), "{key}: {applied:?}");
        assert!(applied.contains(&("other.0.q.weight".to_owned(), 0.0)), "{key}: {applied:?}");
    }
}

#[test]
fn no_layer_or_part_is_taken_for_another() {
    let world = World::new(&["encoder.block.0.attn.q", "shared.q"]);
    let decoder = with_linear(Peft::new(1, 1.0), "decoder.block.0.attn.q", 1);
    world.bench.refuse(&world.base, &[&world.peft(&decoder)], "");
    let world = World::new(&["model.layers.0.attn.q", "model.layers.0.attn.k"]);
    for module in
        ["model.layers.9.attn.q", "layers.9.attn.q", "9.attn.q", "model.layers.9.0.attn.q"]
    {
        let adapter = world.peft(&with_linear(Peft::new(1, 1.0), module, 1));
        let said = world.bench.refuse(&world.base, &[&adapter], "");
        assert!(said.contains("fit nothing") && said.contains(module), "{said}");
    }
    let both = with_linear(Peft::new(1, 1.0), "model.layers.0.attn.q", 1);
    let both = world.peft(&with_linear(both, "model.layers.9.attn.k", 1));
    let said = world.bench.refuse(&world.base, &[&both], "");
    assert!(said.contains("1 of 2 adapter tensors fit nothing"), "{said}");
    let expected = parts(&[("model.layers.0.attn.k", 0.0), ("model.layers.0.attn.q", 1.0)]);
    assert_eq!(world.applied(&both, "--allow-unmatched"), expected);
}

#[test]
fn a_scale_that_nobody_wrote_down_is_asked_for() {
    let world = World::new(&["q"]);
    let adapter = with_linear(Peft::new(4, 8.0), "q", 4).tensors;
    let adapter = adapter.save(&world.path("adapter.safetensors"));
    let said = world.bench.refuse(&world.base, &[&adapter], "");
    assert!(said.contains("scale is unknown") && said.contains("--alpha"), "{said}");
    for (options, part) in [("--alpha 8", 2.0), ("--alpha 8 --rslora", 4.0), ("--scale -3", -3.0)] {
        assert_eq!(world.applied(&adapter, options), parts(&[("q", part)]), "{options}");
    }
}

#[test]
fn biases_are_added_to_or_replaced() {
    let world = World::new(&["q"]);
    let base = Tensors::new()
        .f32("q.weight", &[3, 2], &W)
        .f32("q.bias", &[3], &[1.0, 2.0, 3.0])
        .f32("norm.bias", &[2], &[1.0, 1.0])
        .save(&world.base);
    let lora_bias = with_linear(Peft::new(1, 2.0).field("lora_bias", true), "q", 1).tensor(
        "q.lora_B.bias",
        &[3],
        &[1.0, 0.0, -1.0],
    );
    let merged = read(&world.bench.merge(&base, &[&world.peft(&lora_bias)], "-w 3"));
    assert_eq!(part_of_u(&merged["q.weight"].values()), 6.0);
    assert_eq!(merged["q.bias"].values(), [7.0, 2.0, -3.0]);
    let all = with_linear(Peft::new(1, 2.0).field("bias", "all"), "q", 1)
        .tensor("q.base_layer.bias", &[3], &[3.0, 4.0, 5.0])
        .tensor("norm.bias", &[2], &[0.0, 5.0]);
    let all = world.peft(&all);
    for (options, part, bias, norm) in
        [("", 2.0, [3.0, 4.0, 5.0], [0.0, 5.0]), ("-w 0.5", 1.0, [2.0, 3.0, 4.0], [0.5, 3.0])]
    {
        let merged = read(&world.bench.merge(&base, &[&all], options));
        assert_eq!(part_of_u(&merged["q.weight"].values()), part);
        assert_eq!(merged["q.bias"].values(), bias);
        assert_eq!(merged["norm.bias"].values(), norm);
    }
}

#[test]
fn dora_comes_last_and_once() {
    let world = World::new(&["q", "v"]);
    let lora = with_linear(Peft::new(1, 1.0), "q", 1).save(&world.path("lora"));
    // Magnitudes that are the norms of the rows: nothing is rescaled.
    let dora = Peft::new(1, 1.0)
        .field("use_dora", true)
        .linear("q", 1, &[0.0, 0.0], &[1.0, 1.0, 1.0])
        .tensor("q.lora_magnitude_vector", &[3], &[5f32.sqrt(), 29f32.sqrt(), 61f32.sqrt()]);
    let dora = dora.save(&world.path("dora"));
    let elsewhere = with_linear(Peft::new(1, 1.0), "v", 1).save(&world.path("elsewhere"));
    for adapters in [[&dora, &lora], [&dora, &dora]] {
        let said = world.bench.refuse(&world.base, &adapters.map(PathBuf::as_path), "");
        assert!(said.contains("DoRA") && said.contains("last"), "{said}");
    }
    for adapters in [[&lora, &dora], [&dora, &elsewhere]] {
        world.bench.merge(&world.base, &adapters.map(PathBuf::as_path), "");
    }
}
