//! Adapters that merge must refuse for what stands beside their tensors: types and options that no
//! single weight can express, configs that make no sense, scales unknown or contradictory.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use crate::common::refusal::{CONFIG, FILE, MERGE, MODULE, Scene, TARGET, adapter, base};
use crate::common::{Peft, Random, Tensors, read};
use serde_json::json;

#[test]
fn types_that_hold_no_weights_to_merge() {
    let unmerged = "unmerged";
    let cases = [
        ("XLORA", "every token"),
        ("PROMPT_TUNING", "virtual tokens"),
        ("PREFIX_TUNING", "virtual keys"),
        ("LILY", "every batch"),
        ("SHADOW", "hidden states"),
        ("PSOFT", "signs differ"),
        ("ADAMSS", "clustering"),
        ("OSF", "smaller singular values"),
        ("FROD", "rotations"),
        ("PEANUT", "network of its own"),
        ("BRAND_NEW", "does not know the type"),
    ];
    for (peft_type, reason) in cases {
        let scene = Scene::of(&base(), &adapter(1.0).field("peft_type", peft_type));
        scene.refuses(MERGE, &[CONFIG, peft_type, reason], unmerged);
        scene.remove("adapter/adapter_model.safetensors");
        scene.refuses(MERGE, &[CONFIG, peft_type, reason], unmerged);
    }
    let foreign = Tensors::new().f32("lora_unet_x.set_weight", &[1, 1], &[1.0]);
    let scene = Scene::sound();
    foreign.save(&scene.path("patch.safetensors"));
    let says = ["error: patch.safetensors: ", "lora_unet_x", "set-weight patch"];
    scene.refuses("merge base.safetensors patch.safetensors -o out", &says, unmerged);
}

#[test]
fn fields_that_change_the_mathematics() {
    let cases = [
        ("alora_invocation_tokens", json!([1, 2]), "invocation tokens"),
        ("use_qalora", json!(true), "pooled inputs"),
        ("arrow_config", json!({"top_k": 2}), "experts"),
        ("layer_replication", json!([[0, 2], [1, 3]]), "share a weight"),
    ];
    for (field, value, reason) in cases {
        let scene = Scene::of(&base(), &adapter(1.0).field(field, value));
        scene.refuses(MERGE, &[CONFIG, &format!("`{field}` is set"), reason], "unmerged");
    }
    for harmless in [json!(null), json!(false), json!(0), json!(""), json!([]), json!({})] {
        Scene::of(&base(), &adapter(1.0).field("brand_new_trick", harmless)).runs(MERGE);
    }
    let scene = Scene::of(&base(), &adapter(1.0).field("brand_new_trick", json!({"strength": 2})));
    let says = [CONFIG, "`brand_new_trick` is set to", r#"{"strength":2}"#];
    scene.refuses(MERGE, &says, "--ignore-field");
    scene.refuses(&format!("{MERGE} --ignore-field other"), &says, "--ignore-field");
    scene.runs(&format!("{MERGE} --ignore-field brand_new_trick"));
}

#[test]
fn initialisations_that_changed_the_base() {
    for init in ["pissa", "pissa_niter_16", "olora", "corda", "loftq"] {
        let scene = Scene::of(&base(), &adapter(1.0).field("init_lora_weights", init));
        let says = [CONFIG, "`init_lora_weights` is set", init, "does not fit the original base"];
        scene.refuses(MERGE, &says, "--residual-base");
        scene.runs(&format!("{MERGE} --residual-base"));
    }
}

#[test]
fn configs_that_make_no_sense() {
    let cases = [
        ("rank_pattern", json!({"(": 4}), &["`rank_pattern`", "`(`", "unclosed group"][..]),
        ("alpha_pattern", json!({"q(?!x)": 4}), &["`alpha_pattern`", "`q(?!x)`", "look-around"]),
        ("rank_pattern", json!({"q_proj": 0}), &["`rank_pattern` holds 0"]),
        ("r", json!(-1), &["`r` holds -1"]),
        ("lora_alpha", json!("many"), &["`lora_alpha` holds", "many"]),
    ];
    for (field, value, says) in cases {
        let scene = Scene::of(&base(), &adapter(1.0).field(field, value));
        scene.refuses(MERGE, &[&[CONFIG], says].concat(), "save the adapter again");
    }
    let scene = Scene::sound();
    scene.write("adapter/adapter_config.json", "{\"peft_type\": ");
    scene.refuses(MERGE, &[CONFIG, "EOF", "line 1"], "save the adapter again");
}

/// A file with PEFT's keys but no config says nothing of its scale.
#[test]
fn a_scale_that_nobody_wrote_down() {
    let mut random = Random::new(7);
    let (weights, down, up) =
        (random.values(12, 1.0), random.values(6, 1.0), random.values(8, 1.0));
    let scene = Scene::empty();
    Tensors::new().f32(TARGET, &[4, 3], &weights).save(&scene.path("base.safetensors"));
    Peft::new(2, 4.0).linear(MODULE, 2, &down, &up).tensors.save(&scene.path("bare.safetensors"));
    let merge = "merge base.safetensors bare.safetensors -o out";
    let says = ["error: bare.safetensors: ", MODULE, "the scale is unknown", "adapter_config.json"];
    scene.refuses(merge, &says, "--alpha ALPHA");
    for (options, says) in [("--scale nan", "scale NaN"), ("--alpha inf", "alpha inf")] {
        scene.refuses(&format!("{merge} {options}"), &[says, "not a finite number"], "");
    }
    let root = 2f64.sqrt();
    let cases = [("--alpha 6", 3.0), ("--scale -0.5", -0.5), ("--alpha 6 --rslora", 6.0 / root)];
    for (options, scale) in cases {
        scene.runs(&format!("{merge} {options} --force"));
        let merged = read(&scene.path("out"))[TARGET].values();
        for (at, found) in merged.iter().enumerate() {
            let (row, column) = (at / 3, at % 3);
            let product =
                |rank: usize| f64::from(up[row * 2 + rank]) * f64::from(down[rank * 3 + column]);
            let expected = f64::from(weights[at]) + scale * (product(0) + product(1));
            assert!(
                (found - expected).abs() < 1e-6,
                "{options}: element {at} is {found}, not {expected}"
            );
        }
    }
}

#[test]
fn scales_that_contradict_one_another() {
    let scene = Scene::sound();
    let mut file = Tensors::new()
        .f32("lora_unet_model_layers_0_q_proj.lora_down.weight", &[1, 3], &[1.0; 3])
        .f32("lora_unet_model_layers_0_q_proj.lora_up.weight", &[4, 1], &[1.0; 4])
        .f32("lora_unet_model_layers_0_q_proj.alpha", &[], &[4.0]);
    let headed = file.metadata.get_or_insert_default();
    headed.insert("lora_alpha".to_owned(), "8".to_owned());
    file.save(&scene.path("kohya.safetensors"));
    let says = [
        "error: kohya.safetensors: `lora_unet_model_layers_0_q_proj`: ",
        "alpha is 4 by the alpha tensor, 8 by the file's header",
    ];
    scene.refuses("merge base.safetensors kohya.safetensors -o out", &says, "correct the one");
    let mut told = adapter(1.0);
    let headed = told.tensors.metadata.get_or_insert_default();
    headed.insert("lora_alpha".to_owned(), "2".to_owned());
    let says = [FILE, MODULE, "alpha is 1 by adapter_config.json, 2 by the file's header"];
    Scene::of(&base(), &told).refuses(MERGE, &says, "correct the one");
}

#[test]
fn a_given_scale_that_nothing_takes() {
    let scene = Scene::sound();
    for option in ["--alpha 6", "--scale 2", "--alpha 6 --rslora"] {
        let says = ["every adapter says its own scale"];
        scene.refuses(&format!("{MERGE} {option}"), &says, "");
    }
    adapter(1.0).tensors.save(&scene.path("bare.safetensors"));
    scene.runs("merge base.safetensors adapter bare.safetensors --alpha 6 -o out");
}
