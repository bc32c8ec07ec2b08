//! Merges that must be refused though every input is sound by itself: results out of range, damaged or
//! quantised targets, adapters that cannot be applied together, options that make no sense.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use crate::common::refusal::{MERGE, MODULE, Scene, TARGET, adapter, base};
use crate::common::{Tensors, read};
use lora_tool::format::Dtype;

/// A scene whose base is of this dtype, with this value in element 5, and whose adapter adds to it.
fn adding(dtype: Dtype, value: f32, amount: f32) -> Scene {
    let mut values = [0.5; 12];
    values[5] = value;
    let base = Tensors::new().float(TARGET, dtype, &[4, 3], &values);
    let untouched = base.float("norm.weight", dtype, &[2], &[1.0, value]);
    Scene::of(&untouched, &adapter(amount))
}

#[test]
fn results_out_of_range() {
    let cases = [
        (Dtype::F16, 64000.0, 2000.0, "6.6e4"),
        (Dtype::F16, -64000.0, -2000.0, "-6.6e4"),
        (Dtype::BF16, 3.0e38, 1.0e38, "e38"),
        // Within f32, beyond the last bf16.
        (Dtype::BF16, 3.3e38, 1.0e37, "e38"),
        (Dtype::F32, 3.0e38, 1.0e38, "e38"),
    ];
    for (dtype, value, amount, shown) in cases {
        let dtype_name = dtype.to_string();
        let says = ["error: out: ", TARGET, "element 5 of the result", shown, &dtype_name];
        adding(dtype, value, amount).refuses_late(MERGE, &says, "wider type");
        // As much below the limit as it was above.
        adding(dtype, value, -amount).runs(MERGE);
    }
    let says = ["`norm.weight`", "element 1 of the result", "1e5", "F16"];
    adding(Dtype::F32, 1e5, -5e4).refuses_late(
        &format!("{MERGE} --dtype f16"),
        &says,
        "wider type",
    );
    let says = [TARGET, "element 5 of the result", "6.6e4", "F16"];
    let one_file = "merge base.safetensors adapter -o out.safetensors";
    adding(Dtype::F16, 64000.0, 2000.0).refuses_late(one_file, &says, "wider type");
}

#[test]
fn a_base_that_is_damaged_where_it_is_changed() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64] {
        for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
            let found = format!("element 5 of the base tensor is {shown}");
            let says = ["error: base.safetensors: ", TARGET, &found];
            adding(dtype, value, 1.0).refuses_late(MERGE, &says, "damaged");
        }
    }
    // What nothing touches keeps its bytes, whatever they are.
    let base = base().f32("norm.weight", &[1], &[f32::NAN]);
    let scene = Scene::of(&base, &adapter(1.0));
    scene.runs(MERGE);
    assert!(read(&scene.path("out"))["norm.weight"].values()[0].is_nan());
}

#[test]
fn quantised_targets() {
    let tensor = |name: &str, dtype: Dtype, shape: &[usize]| {
        (format!("{MODULE}.{name}"), dtype, shape.to_vec())
    };
    let made = |tensors: &[(String, Dtype, Vec<usize>)]| {
        tensors.iter().fold(Tensors::new(), |base, (name, dtype, shape)| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            base.raw(name, *dtype, shape, &vec![0; bytes])
        })
    };
    let damaged = [
        (
            vec![tensor("qweight", Dtype::I32, &[1, 4]), tensor("scales", Dtype::F16, &[1, 4])],
            "qweight",
            "stored as GPTQ or AWQ, and `model.layers.0.q_proj.qzeros` is nowhere",
            "incomplete",
        ),
        (
            vec![tensor("weight", Dtype::U8, &[6, 1]), tensor("weight.absmax", Dtype::F32, &[1])],
            "weight",
            "stored as bitsandbytes 4-bit, and",
            "incomplete",
        ),
        (
            vec![tensor("weight.absmax", Dtype::F32, &[1])],
            "weight.absmax",
            "belongs to a quantised weight",
            "incomplete",
        ),
        (
            vec![tensor("weight_packed", Dtype::I32, &[4, 1])],
            "weight_packed",
            "stored as packed integers, and `model.layers.0.q_proj.weight_shape` is nowhere",
            "incomplete",
        ),
        (
            vec![tensor("W_q", Dtype::U8, &[4, 3]), tensor("scale", Dtype::F16, &[4, 1])],
            "W_q",
            "that HQQ quantised cannot be read",
            "16-bit original",
        ),
    ];
    for (tensors, name, says, hint) in damaged {
        let scene = Scene::of(&made(&tensors), &adapter(1.0));
        let says = ["error: base.safetensors: ", &format!("`{MODULE}.{name}`: "), says];
        scene.refuses(MERGE, &says, hint);
        scene.refuses(&format!("{MERGE} --allow-unmatched"), &says, hint);
    }
    // Codes that nothing says the meaning of.
    let codes = made(&[tensor("weight", Dtype::I8, &[4, 3])]);
    let says =
        ["error: adapter: ", MODULE, &format!("`{MODULE}.weight` is quantised (packed in I8)")];
    Scene::of(&codes, &adapter(1.0)).refuses(MERGE, &says, "then quantise again");
    let odd = Tensors::new().raw(TARGET, Dtype::I64, &[4, 3], &[0; 96]);
    let says = ["error: adapter: ", TARGET, "I64", "cannot take an update"];
    Scene::of(&odd, &adapter(1.0)).refuses(MERGE, &says, "F32, F16 or BF16");
}

/// A base whose one weight is 8-bit floats with a scale.
fn scaled() -> Tensors {
    Tensors::new().raw(TARGET, Dtype::F8_E4M3, &[4, 3], &[56; 12]).f32(
        &format!("{MODULE}.weight_scale"),
        &[1],
        &[0.5],
    )
}

#[test]
fn quantised_targets_where_they_may_not_change() {
    let scene = Scene::of(&scaled(), &adapter(1.0));
    let says = [TARGET, "is quantised (fp8_scaled, F8_E4M3, one scale)", "--quantized refuse"];
    scene.refuses(&format!("{MERGE} --quantized refuse"), &says, "");
    let says = ["out.gguf", "only a base in GGUF becomes a GGUF file by itself", "--reference"];
    let line = "merge base.safetensors adapter -o out.gguf";
    scene.refuses(line, &says, "");
    scene.runs(MERGE);
    assert_eq!(read(&scene.path("out"))[TARGET].dtype, Dtype::BF16);
}

#[test]
fn schemes_that_are_not_read_stay_as_they_are() {
    let base = Tensors::new()
        .raw("other.W_q", Dtype::U8, &[4, 3], &[7; 12])
        .float("other.scale", Dtype::F16, &[4, 1], &[0.1; 4])
        .f32(TARGET, &[4, 3], &[0.5; 12]);
    let scene = Scene::of(&base, &adapter(1.0));
    scene.runs(MERGE);
    let (before, after) = (read(&scene.path("base.safetensors")), read(&scene.path("out")));
    assert_eq!(
        (&after["other.W_q"], &after["other.scale"]),
        (&before["other.W_q"], &before["other.scale"])
    );
    // Nobody knows which of its tensors a dtype is for.
    let says = ["`other.W_q`", "that HQQ quantised cannot be read"];
    scene.refuses("merge base.safetensors adapter -o new --dtype bf16", &says, "16-bit original");
}

#[test]
fn weights_that_make_no_sense() {
    let scene = Scene::sound();
    scene.refuses(&format!("{MERGE} -w 1 2"), &["2 weights for 1 adapter"], "-w 0.7,0.3");
    let two = "merge base.safetensors adapter adapter -o out";
    scene.refuses(&format!("{two} -w 0.5"), &["1 weight for 2 adapters"], "-w 0.7,0.3");
    for (weight, shown) in [("nan", "NaN"), ("inf", "inf")] {
        let says = ["error: adapter: ", &format!("weight {shown} is not a finite number")];
        scene.refuses(&format!("{MERGE} -w {weight}"), &says, "");
        scene.refuses(&format!("merge base.safetensors adapter:{weight} -o out"), &says, "");
    }
    let says = ["`adapter:2` carries a weight and so does -w"];
    scene.refuses("merge base.safetensors adapter:2 -o out -w 1", &says, "");
    let usage = [
        ("--module-weight q=nan", "`NaN` is not finite"),
        ("--module-weight q", "has no `=`"),
        ("--module-weight (=1", "regex parse error"),
        ("--include (", "regex parse error"),
        ("--exclude [", "regex parse error"),
        ("--dtype f8", "possible values"),
        ("--max-shard-size 5parsecs", "no unit"),
        ("--alpha 1 --scale 2", "cannot be used with"),
        ("--rslora", "--alpha"),
        ("--frobnicate", "unexpected argument"),
    ];
    for (option, says) in usage {
        // A usage line repeats what was typed, so a dry run's words differ.
        scene.refuses_late(&format!("{MERGE} {option}"), &[says], "");
    }
    let says = ["convention `klingon` is unknown", "peft, gguf, mlx"];
    scene.refuses(&format!("{MERGE} --convention klingon"), &says, "");
    let says = ["no module is left for --include `k_proj`"];
    scene.refuses(&format!("{MERGE} --include k_proj"), &says, "--modules");
    let says = ["no module of any adapter is left"];
    scene.refuses(&format!("{MERGE} --exclude q_proj"), &says, "--modules");
}

#[test]
fn dora_comes_last_and_once() {
    let scene = Scene::sound();
    let dora = adapter(0.5).field("use_dora", true);
    dora.tensor(&format!("{MODULE}.lora_magnitude_vector"), &[4], &[1.0; 4])
        .save(&scene.path("dora"));
    let says = [MODULE, "such an adapter merges last, and only one of them"];
    for (adapters, named) in [("dora adapter", "error: adapter: "), ("dora dora", "error: dora: ")]
    {
        let line = format!("merge base.safetensors {adapters} -o out");
        scene.refuses(&line, &[&[named], &says[..]].concat(), "or merge in two steps");
    }
    scene.runs("merge base.safetensors adapter dora -o out");
    // What no two adapters share has no order.
    scene.runs("merge base.safetensors dora adapter -w 1 0 -o out --force");
}

#[test]
fn replacements_that_contradict_one_another() {
    let scene = Scene::empty();
    base().f32("score.weight", &[2], &[0.0; 2]).save(&scene.path("base.safetensors"));
    for (name, value) in [("first", 1.0), ("same", 1.0), ("other", 2.0)] {
        adapter(0.5).tensor("score.weight", &[2], &[value; 2]).save(&scene.path(name));
    }
    let says = ["`score.weight`", "both first and other replace it", "different values"];
    scene.refuses("merge base.safetensors first other -o out", &says, "--exclude");
    scene.refuses(
        "merge base.safetensors same first other -o out",
        &["same and other"],
        "--exclude",
    );
    // Equal values, unequally strong.
    scene.refuses("merge base.safetensors first same:0.5 -o out", &["first and same"], "--exclude");
    scene.runs("merge base.safetensors first same -o out");
    assert_eq!(read(&scene.path("out"))["score.weight"].values(), [1.0, 1.0]);
    let grown = adapter(0.5).tensor("score.weight", &[3], &[1.0; 3]);
    grown.save(&scene.path("grown"));
    let says = ["error: grown: ", "score.weight", "[3]", "[2]"];
    scene.refuses("merge base.safetensors grown -o elsewhere", &says, "trained on");
}
