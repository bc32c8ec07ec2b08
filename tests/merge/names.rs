//! Every rule of names: a base in one spelling, an adapter in the other, the result held to plain f64
//! loops. And every prefix with every suffix.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::PathBuf;

use crate::common::renames::RENAMES;
use crate::common::{Bench, Peft, Random, Tensors, product, read};

const RANK: usize = 2;
/// Outputs and inputs, by a module's number: no two alike, so that shapes do not hide a wrong place.
fn size(at: usize) -> (usize, usize) {
    (5 + 2 * at, 4 + 2 * at)
}

struct World {
    bench: Bench,
    base: PathBuf,
    /// Names, values before, and update of each tensor.
    tensors: Vec<(String, Vec<f32>, Vec<f64>)>,
    factors: Vec<(Vec<f32>, Vec<f32>)>,
}

impl World {
    fn new(names: &[&str]) -> Self {
        let (bench, mut random) = (Bench::new(), Random::new(3));
        let mut file = Tensors::new();
        let (mut tensors, mut factors) = (Vec::new(), Vec::new());
        for (at, name) in names.iter().enumerate() {
            let (outputs, inputs) = size(at);
            let values = random.values(outputs * inputs, 1.0);
            file = file.f32(&format!("{name}.weight"), &[outputs, inputs], &values);
            let (down, up) =
                (random.values(RANK * inputs, 1.0), random.values(outputs * RANK, 1.0));
            let delta = product(&up, &down, RANK);
            tensors.push((format!("{name}.weight"), values, delta));
            factors.push((down, up));
        }
        let base = file.save(&bench.path("base.safetensors"));
        Self { bench, base, tensors, factors }
    }

    fn peft(&self, names: &[&str]) -> PathBuf {
        let mut peft = Peft::new(RANK, RANK as f64);
        for (name, (down, up)) in names.iter().zip(&self.factors) {
            peft = peft.linear(name, RANK, down, up);
        }
        peft.save(&self.bench.path("adapter"))
    }

    fn check(&self, adapter: &std::path::Path, what: &str) {
        let merged = read(&self.bench.merge(&self.base, &[adapter], "--verify"));
        for (name, before, delta) in &self.tensors {
            for (at, got) in merged[name].values().iter().enumerate() {
                let exact = f64::from(before[at]) + delta[at];
                assert!((got - exact).abs() < 1e-5, "{what}: {name} at {at}: {got}, not {exact}");
            }
        }
    }
}

#[test]
fn every_rename_serves_both_ways() {
    for (class, pairs) in RENAMES {
        let old: Vec<&str> = pairs.iter().map(|(old, _)| *old).collect();
        let new: Vec<&str> = pairs.iter().map(|(_, new)| *new).collect();
        for (base, adapter) in [(&old, &new), (&new, &old)] {
            let world = World::new(base);
            let adapter = world.peft(adapter);
            world.check(&adapter, class);
        }
    }
}

#[test]
fn every_prefix_goes_with_every_suffix() {
    let name = "blocks.0.self_attn.q_proj";
    let flat = name.replace('.', "_");
    for root in ["", "model.", "net.", "model.diffusion_model."] {
        for prefix in [
            "base_model.model.",
            "",
            "model.",
            "diffusion_model.",
            "transformer.",
            "lora_unet_",
            "lycoris_",
            "lora_transformer_",
        ] {
            for [down, up] in [
                ["lora_A.weight", "lora_B.weight"],
                ["lora_A.default.weight", "lora_B.default.weight"],
                ["lora_A.style.weight", "lora_B.style.weight"],
                ["lora_A", "lora_B"],
                ["lora_down.weight", "lora_up.weight"],
                ["lora_down", "lora_up"],
                ["lora.down.weight", "lora.up.weight"],
                ["lora_linear_layer.down.weight", "lora_linear_layer.up.weight"],
            ] {
                let world = World::new(&[&format!("{root}{name}")]);
                let (a, b) = &world.factors[0];
                let own = if prefix.ends_with('_') { &flat } else { name };
                let module = format!("{prefix}{own}");
                let (outputs, inputs) = size(0);
                let file = Tensors::new()
                    .f32(&format!("{module}.{down}"), &[RANK, inputs], a)
                    .f32(&format!("{module}.{up}"), &[outputs, RANK], b)
                    .f32(&format!("{module}.alpha"), &[], &[RANK as f32]);
                let adapter = file.save(&world.bench.path("adapter.safetensors"));
                world.check(&adapter, &format!("{module}.{down} on {root}"));
            }
        }
    }
}

#[test]
fn a_suffix_that_is_unknown_is_one_item_that_fits_nothing() {
    let names = ["model.layers.0.q", "model.layers.0.k"];
    let world = World::new(&names);
    let mut file = Tensors::new();
    for (at, (name, (down, up))) in names.iter().zip(&world.factors).enumerate() {
        let (outputs, inputs) = size(at);
        file = file.f32(&format!("{name}.lora_down.weight"), &[RANK, inputs], down).f32(
            &format!("{name}.lora_up.weight"),
            &[outputs, RANK],
            up,
        );
    }
    let strange = format!("{}.trick_of_tomorrow", names[1]);
    let adapter = file.f32(&strange, &[1], &[1.0]).save(&world.bench.path("adapter.safetensors"));
    let said = world.bench.refuse(&world.base, &[&adapter], "");
    assert!(said.contains(&strange) && said.contains("fit nothing"), "{said}");
    // Its module is left out whole: without the key it would mean something else.
    let merged = read(&world.bench.merge(&world.base, &[&adapter], "--allow-unmatched"));
    let (name, before, delta) = &world.tensors[0];
    let exact = f64::from(before[0]) + delta[0];
    assert!((merged[name].values()[0] - exact).abs() < 1e-5);
    let (name, before, _) = &world.tensors[1];
    assert_eq!(merged[name].values()[0], f64::from(before[0]));
}

#[test]
fn two_roots_that_fit_are_named_and_refused() {
    let world = World::new(&["text.layers.0.attn.q", "audio.layers.1.attn.q"]);
    let (outputs, inputs) = size(0);
    let values = Random::new(9).values(outputs * inputs, 1.0);
    let base = Tensors::new()
        .f32("text.layers.0.attn.q.weight", &[outputs, inputs], &values)
        .f32("image.layers.0.attn.q.weight", &[outputs, inputs], &values)
        // A third that shapes rule out.
        .f32(
            "audio.layers.0.attn.q.weight",
            &[outputs + 1, inputs],
            &vec![0.0; (outputs + 1) * inputs],
        )
        .save(&world.bench.path("base.safetensors"));
    let adapter = world.peft(&["layers.0.attn.q"]);
    let said = world.bench.refuse(&base, &[&adapter], "");
    for name in ["text.layers.0.attn.q", "image.layers.0.attn.q"] {
        assert!(said.contains(name), "{said}");
    }
    assert!(!said.contains("audio"), "{said}");
}

#[test]
fn shapes_choose_between_two_roots() {
    let world = World::new(&["text.layers.0.attn.q", "image.layers.0.attn.q"]);
    let adapter = world.peft(&["layers.0.attn.q"]);
    let merged = read(&world.bench.merge(&world.base, &[&adapter], ""));
    let (name, before, delta) = &world.tensors[0];
    for (at, got) in merged[name].values().iter().enumerate() {
        assert!((got - f64::from(before[at]) - delta[at]).abs() < 1e-5);
    }
    let (name, before, _) = &world.tensors[1];
    assert_eq!(merged[name].values()[0], f64::from(before[0]));
}
