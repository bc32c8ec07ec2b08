//! Adapters that merge must refuse for their tensors: made for another base, incomplete, ambiguous, or
//! no numbers.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use crate::common::refusal::{FILE, MERGE, MODULE, Scene, TARGET, adapter, base, key};
use crate::common::{Peft, Random, Tensors};
use lora_tool::format::Dtype;
use serde_json::{Value, json};

/// A scene whose adapter has factors of these shapes, under a config of rank 1.
fn factors(down: &[usize], up: &[usize]) -> Scene {
    let tensors = Tensors::new();
    let filled = |shape: &[usize]| vec![1.0; shape.iter().product()];
    let tensors = tensors.f32(&key("lora_A.weight"), down, &filled(down));
    let tensors = tensors.f32(&key("lora_B.weight"), up, &filled(up));
    Scene::of(&base(), &Peft { tensors, ..Peft::new(1, 1.0) })
}

#[test]
fn an_adapter_for_another_architecture() {
    let other = Peft::new(1, 1.0).field("base_model_name_or_path", "acme/other-7b");
    let names = ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"];
    let other = names.iter().fold(other, |peft, name| peft.linear(name, 1, &[1.0; 3], &[1.0; 4]));
    let scene = Scene::of(&base(), &other);
    let says =
        ["error: adapter: ", "2 of 2", "fit nothing in base.safetensors", names[0], names[1]];
    scene.refuses(MERGE, &says, "another architecture (it was trained on `acme/other-7b`)");
    // Nothing would be left to merge.
    scene.refuses(&format!("{MERGE} --allow-unmatched"), &says, "another architecture");
}

#[test]
fn three_of_264_modules_without_a_place() {
    let name = |layer: usize, number: usize| format!("model.layers.{layer}.block.part_{number}");
    let mut base = Tensors::new();
    let mut peft = Peft::new(1, 1.0);
    let mut random = Random::new(1);
    for (layer, number) in (0..33).flat_map(|layer| (0..8).map(move |number| (layer, number))) {
        let name = name(layer, number);
        if (layer, number) < (32, 5) {
            base = base.f32(&format!("{name}.weight"), &[4, 3], &random.values(12, 1.0));
        }
        peft = peft.linear(&name, 1, &random.values(3, 1.0), &random.values(4, 1.0));
    }
    let scene = Scene::of(&base, &peft);
    let lost = [name(32, 5), name(32, 6), name(32, 7)];
    let says = ["3 of 264", "(nearest: model.layers.", &lost[0], &lost[1], &lost[2]];
    scene.refuses(MERGE, &says, "--allow-unmatched");
    let said = scene.runs(&format!("{MERGE} --allow-unmatched"));
    assert!(said.contains("261/264 modules applied"), "{said}");
    for name in &lost {
        assert!(said.contains(&format!("unmatched    {name}\n")), "{name} in\n{said}");
    }
    let report = scene.runs(&format!("{MERGE} --allow-unmatched --force --json"));
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let listed: Vec<_> = report["unmatched"].as_array().expect("a list").iter().collect();
    assert_eq!(
        listed.iter().map(|one| one["name"].as_str()).collect::<Vec<_>>(),
        lost.each_ref().map(|l| Some(l.as_str()))
    );
    assert_eq!(listed[0]["nearest"][0], json!("model.layers.0.block.part_5.weight"));
}

#[test]
fn factors_that_do_not_fit() {
    let scene = factors(&[1, 5], &[4, 1]);
    let says = ["error: adapter: ", MODULE, "[4, 5]", TARGET, "[4, 3]"];
    scene.refuses(MERGE, &says, "trained on");
    let scene = factors(&[2, 3], &[4, 1]);
    scene.refuses(MERGE, &[FILE, MODULE, "A is [2, 3]", "B is [4, 1]"], "different runs");
    let scene = factors(&[2, 3], &[4, 2]);
    scene.refuses(MERGE, &[FILE, MODULE, "rank 2", "the config says 1"], "different runs");
    for (down, up, empty) in [([0, 3], [4, 0], "lora_A"), ([1, 3], [0, 1], "lora_B")] {
        let says = [FILE, &key(&format!("{empty}.weight")), "empty", "0"];
        factors(&down, &up).refuses(MERGE, &says, "ZeRO-3");
    }
    factors(&[3], &[4, 1]).refuses(
        MERGE,
        &[FILE, &key("lora_A.weight"), "[3]", "expected [rank, in]"],
        "",
    );
    factors(&[1, 3], &[4]).refuses(
        MERGE,
        &[FILE, &key("lora_B.weight"), "[4]", "expected [out, rank]"],
        "",
    );
}

#[test]
fn factors_without_their_partner() {
    let config = Peft::new(1, 1.0);
    for (name, shape, has, lacks) in
        [("lora_A", [1, 3], "A (down)", "B (up)"), ("lora_B", [4, 1], "B (up)", "A (down)")]
    {
        let alone = Tensors::new().f32(
            &key(&format!("{name}.weight")),
            &shape,
            &vec![1.0; shape[0] * shape[1]],
        );
        let scene = Scene::of(&base(), &Peft { tensors: alone, ..config.clone() });
        scene.refuses(
            MERGE,
            &[FILE, MODULE, &format!("it has {has} but no {lacks}")],
            "incomplete",
        );
    }
    let dora = adapter(1.0).field("use_dora", true);
    Scene::of(&base(), &dora).refuses(
        MERGE,
        &[FILE, MODULE, "magnitudes", "use_dora"],
        "incomplete",
    );
}

#[test]
fn factors_that_are_no_numbers() {
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let peft = Peft::new(1, 1.0).linear(MODULE, 1, &[0.0, 1.0, value], &[1.0; 4]);
        let says = [FILE, &key("lora_A.weight"), &format!("element 2 is {shown}")];
        Scene::of(&base(), &peft).refuses(MERGE, &says, "earlier checkpoint");
        let peft = Peft::new(1, 1.0).linear(MODULE, 1, &[1.0; 3], &[1.0, value, 1.0, value]);
        let says = [FILE, &key("lora_B.weight"), &format!("element 1 is {shown}")];
        Scene::of(&base(), &peft).refuses(MERGE, &says, "earlier checkpoint");
    }
    let tensors = Tensors::new().raw(&key("lora_A.weight"), Dtype::I8, &[1, 3], &[1; 3]);
    let tensors = tensors.f32(&key("lora_B.weight"), &[4, 1], &[1.0; 4]);
    let scene = Scene::of(&base(), &Peft { tensors, ..Peft::new(1, 1.0) });
    scene.refuses(MERGE, &[FILE, &key("lora_A.weight"), "I8", "arithmetic"], "F32, F16 or BF16");
}

#[test]
fn names_that_mean_two_things() {
    let mut twice = adapter(1.0);
    twice.tensors = twice.tensors.f32(&key("lora_A.default.weight"), &[1, 3], &[2.0; 3]);
    let says =
        [FILE, MODULE, &key("lora_A.weight"), &key("lora_A.default.weight"), "of one adapter"];
    Scene::of(&base(), &twice).refuses(MERGE, &says, "one of them only");

    let base = Tensors::new().f32("a.b_c.weight", &[4, 3], &[0.0; 12]);
    let base = base.f32("a_b.c.weight", &[4, 3], &[0.0; 12]);
    let scene = Scene::of(&base, &adapter(1.0));
    let kohya = Tensors::new().f32("lora_unet_a_b_c.lora_down.weight", &[1, 3], &[1.0; 3]);
    let kohya = kohya.f32("lora_unet_a_b_c.lora_up.weight", &[4, 1], &[1.0; 4]);
    kohya.save(&scene.path("kohya.safetensors"));
    let says =
        ["error: base.safetensors: `lora_unet_a_b_c`: ", "`a.b_c.weight` and `a_b.c.weight`"];
    scene.refuses("merge base.safetensors kohya.safetensors -o out", &says, "dotted names");

    let layers = ["text.layers.0.q_proj.weight", "image.layers.0.q_proj.weight"];
    let base = layers.iter().fold(Tensors::new(), |base, name| base.f32(name, &[4, 3], &[0.0; 12]));
    let says = ["two ways", layers[0], layers[1]];
    Scene::of(&base, &Peft::new(1, 1.0).linear("layers.0.q_proj", 1, &[1.0; 3], &[1.0; 4]))
        .refuses(MERGE, &says, "component itself");
}

#[test]
fn keys_that_no_format_explains() {
    let mut odd = adapter(1.0);
    odd.tensors = odd.tensors.f32("base_model.model.mystery", &[1], &[1.0]);
    let says =
        ["error: adapter: ", "1 of 2 adapter tensors fit nothing", "base_model.model.mystery"];
    Scene::of(&base(), &odd).refuses(MERGE, &says, "inspect");
    let scene = Scene::sound();
    let says = ["error: base.safetensors: ", "1 of 1 keys", TARGET];
    scene.refuses("merge base.safetensors base.safetensors -o out", &says, "inspect");
}
