//! An adapter is no base: every verb that takes a model's checkpoint refuses one, and says what to do.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use crate::common::refusal::Scene;
use crate::common::{Peft, Random, Tensors};
use lora_tool::format::Dtype;

const MODULE: &str = "model.layers.0.q_proj";

/// A base, PEFT adapters `one` and `two`, kohya files `a` and `b`.
fn scene() -> Scene {
    let scene = Scene::sound();
    for (name, seed) in [("one", 1), ("two", 2)] {
        let mut random = Random::new(seed);
        let peft =
            Peft::new(1, 1.0).linear(MODULE, 1, &random.values(3, 1.0), &random.values(4, 1.0));
        peft.save(&scene.path(name));
    }
    for (name, seed) in [("a.safetensors", 3), ("b.safetensors", 4)] {
        let mut random = Random::new(seed);
        let module = "lora_unet_mid_block_attentions_0_proj_in";
        let file = Tensors::new()
            .f32(&format!("{module}.lora_down.weight"), &[2, 4], &random.values(8, 1.0))
            .f32(&format!("{module}.lora_up.weight"), &[4, 2], &random.values(8, 1.0))
            .f32(&format!("{module}.alpha"), &[], &[2.0]);
        file.save(&scene.path(name));
    }
    scene
}

#[test]
fn every_verb_refuses_an_adapter_as_base() {
    let scene = scene();
    let both = "lora-tool combine a.safetensors b.safetensors -o OUT";
    let says = ["a.safetensors: this is an adapter (kohya, 1 module), not a base checkpoint"];
    scene.refuses("merge a.safetensors b.safetensors -o out", &says, both);
    scene.refuses("extract a.safetensors b.safetensors --rank 1 -o out", &says, both);
    let line = "verify base.safetensors --base a.safetensors --adapter b.safetensors";
    scene.refuses_late(line, &says, both);
    scene.refuses_late("inspect b.safetensors --against a.safetensors", &says, both);
    scene.refuses_late("check b.safetensors --for comfyui --against a.safetensors", &says, both);
    let recipe = "base: one\nadapters: [two]\noutput: out\n";
    scene.write("recipe.yaml", recipe);
    let says = ["one: this is an adapter (peft, 1 module), not a base checkpoint"];
    scene.refuses("run recipe.yaml", &says, "lora-tool combine one two -o OUT");
    scene.refuses("merge one two -o out", &says, "lora-tool combine one two -o OUT");
    let says = ["two: this is an adapter (peft, 1 module), not a fine-tuned checkpoint"];
    scene.refuses("extract base.safetensors two --rank 1 -o out", &says, "the base comes first");
    let says = ["one: this is an adapter (peft, 1 module), not a merged checkpoint"];
    scene.refuses_late(
        "verify one --base base.safetensors --adapter two",
        &says,
        "name the checkpoint",
    );
    scene.runs("merge base.safetensors one -o merged.safetensors --receipt receipt");
    scene.refuses_late("undo one --receipt receipt -o out", &says, "name the checkpoint");
}

#[test]
fn swapped_inputs_are_told_from_two_adapters() {
    let scene = scene();
    scene.refuses(
        "merge one base.safetensors -o out",
        &["one: this is an adapter"],
        "the base comes first: lora-tool merge base.safetensors one -o OUT",
    );
}

#[test]
fn kohyas_line_without_a_base_names_combine() {
    let scene = scene();
    scene.refuses(
        "merge --models a.safetensors b.safetensors --ratios 0.5 0.25 --save_to out.safetensors",
        &["a merge needs a base"],
        "lora-tool combine a.safetensors b.safetensors -w 0.5 0.25 -o out.safetensors",
    );
}

/// As Phi-4-multimodal comes: its own adapters lie in it, beside the weights that they are for.
#[test]
fn a_model_with_adapters_inside_is_a_base() {
    let scene = scene();
    let mut random = Random::new(9);
    let mut base = Tensors::new();
    for layer in 0..2 {
        let module = format!("model.layers.{layer}.q_proj");
        let weight = random.values(12, 1.0);
        base = base.float(&format!("{module}.base_layer.weight"), Dtype::BF16, &[4, 3], &weight);
        for name in ["speech", "vision"] {
            let (down, up) = (random.values(3, 1.0), random.values(4, 1.0));
            base = base.f32(&format!("{module}.lora_A.{name}.weight"), &[1, 3], &down).f32(
                &format!("{module}.lora_B.{name}.weight"),
                &[4, 1],
                &up,
            );
        }
    }
    base.save(&scene.path("phi.safetensors"));
    let said = scene.runs("inspect one --against phi.safetensors");
    assert!(!said.contains("this is an adapter"), "{said}");
}

#[test]
fn a_reference_is_no_adapter() {
    let scene = scene();
    let says = ["two: this is an adapter (peft, 1 module), not a base checkpoint"];
    let hint = "name the checkpoint of the model itself";
    scene.refuses("convert one --to kohya --reference two -o out.safetensors", &says, hint);
    scene.refuses("combine one one --to kohya --reference two -o out.safetensors", &says, hint);
}
