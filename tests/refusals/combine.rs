//! Combinations and comparisons that must be refused: exit 2, the facts, a hint, nothing on the disk.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use crate::common::refusal::{MODULE, Scene, adapter, key};
use crate::common::{Peft, Tensors, lora_tool};
use serde_json::json;

/// `adapter` and `other`, of one module and one shape, and a kohya file of the same.
fn pair() -> Scene {
    let scene = Scene::sound();
    adapter(-0.5).save(&scene.path("other"));
    kohya(MODULE.replace('.', "_").as_str()).save(&scene.path("kohya.safetensors"));
    scene
}

fn kohya(module: &str) -> Tensors {
    Tensors::new().f32(&format!("lora_unet_{module}.lora_down.weight"), &[1, 3], &[1.0; 3]).f32(
        &format!("lora_unet_{module}.lora_up.weight"),
        &[4, 1],
        &[1.0; 4],
    )
}

/// A scene whose `other` is this.
fn with(other: &Peft) -> Scene {
    let scene = Scene::sound();
    other.save(&scene.path("other"));
    scene
}

/// A line that the argument parser must refuse; it says how, in clap's own form.
fn misused(scene: &Scene, line: &str, says: &[&str]) {
    let done = lora_tool()
        .current_dir(scene.path(""))
        .args(line.split(' '))
        .output()
        .expect("the command runs");
    let said = String::from_utf8(done.stderr).expect("UTF-8");
    assert_eq!(done.status.code(), Some(2), "{line}\n{said}");
    assert!(done.stdout.is_empty(), "{line}");
    for fragment in says {
        assert!(said.contains(fragment), "{line}\nno `{fragment}` in\n{said}");
    }
    assert!(!scene.path("out").exists(), "{line}");
}

#[test]
fn weights_that_are_no_match() {
    let scene = pair();
    let hint = "one weight per adapter, in order: -w 0.7 0.3";
    scene.refuses("combine adapter other -o out -w 1", &["1 weight for 2 adapters"], hint);
    scene.refuses("combine adapter other -o out -w 1 2 3", &["3 weights for 2 adapters"], hint);
    scene.refuses("combine adapter other:0.5 -o out -w 1 2", &["`other:0.5` carries a weight"], "");
    for bad in ["nan", "inf"] {
        let line = format!("combine adapter other -o out -w 1 {bad}");
        scene.refuses(&line, &["is not a finite number"], "");
    }
    misused(&scene, "combine adapter other -o out -w 1 x", &["'x'", "--weights"]);
    // Nothing is left of it, which is hardly meant.
    let hint = "`lora-tool inspect ADAPTER --modules`";
    scene.refuses("combine adapter other -o out -w 0 0", &["no module", "weight"], hint);
    scene.refuses("combine adapter other -o out --include nothing", &["no module"], hint);
}

#[test]
fn methods_nobody_knows() {
    let scene = pair();
    let says = ["no method `linaer`", "linear, cat, shared-basis"];
    scene.refuses("combine adapter other -o out --method linaer", &says, "did you mean `linear`?");
    let says = ["no method `peft_liner`"];
    let line = "combine adapter other -o out --method peft_liner";
    scene.refuses(line, &says, "did you mean `peft-linear`?");
    scene.refuses("combine adapter other -o out --method zzzzzzzz", &["no method `zzzzzzzz`"], "");
}

#[test]
fn parameters_nobody_takes() {
    let scene = pair();
    misused(&scene, "combine adapter other -o out --no-such-flag", &["unexpected argument"]);
    let line = "combine adapter other -o out";
    for (flags, says) in [
        ("--density 0.5", "`linear` does not take --density; it takes --lambda"),
        ("--method ties --gamma 0.1", "`ties` does not take --gamma"),
        ("--method ties --density 0", "--density 0: expected a number above 0 to 1"),
        ("--method ties --density 1,1,1", "one for each of the 2 adapters"),
        ("--method ties --majority-sign most", "expected total or frequency"),
        ("--method tsv --space core", "--space core is for methods that look at elements"),
        ("--method tsv --compat mergekit", "mergekit has no `tsv`"),
        ("--method ties --rank energy:0.9", "leaves no low rank"),
        ("--method della --epsilon 0.5", "no room for an epsilon"),
        ("other --method slerp", "between two adapters; there are 3"),
    ] {
        scene.refuses(&format!("{line} {flags}"), &[says], "");
    }
    misused(&scene, "combine adapter other -o out --compat mergekitten", &["mergekitten", "peft"]);
    misused(&scene, "resize adapter -o out --rank 1 --method cat", &["unexpected argument"]);
    misused(&scene, "resize adapter other -o out --rank 1", &["unexpected argument", "other"]);
    misused(&scene, "resize adapter -o out", &["--rank"]);
}

#[test]
fn policies_that_are_none() {
    let scene = pair();
    for (policy, says) in [
        ("0", "the least rank is 1"),
        ("-3", "no rank policy"),
        ("many", "no rank policy"),
        ("energy:0", "0 < share ≤ 1"),
        ("energy:1.5", "0 < share ≤ 1"),
        ("energy:nan", "`nan` is no number"),
        ("ratio:1", "must be above 1"),
        ("abs:0", "must be above 0"),
        ("size:much", "`much` is no amount"),
        ("entropy:1", "`entropy` is no rank policy"),
    ] {
        misused(&scene, &format!("combine adapter other -o out --rank={policy}"), &[says]);
        misused(&scene, &format!("resize adapter -o out --rank={policy}"), &[says]);
    }
    let says = ["--dynamic-param"];
    misused(&scene, "resize adapter -o out --rank 4 --dynamic-method sv_fro", &says);
    misused(&scene, "resize adapter -o out --rank 4 --dynamic-param 0.5", &["--dynamic-method"]);
    let line = "resize adapter -o out --dynamic-method sv_what --dynamic-param 0.5";
    scene.refuses(line, &["`sv_what` is no rank policy"], "");
    let line =
        "resize adapter -o out --rank energy:0.9 --dynamic-method sv_fro --dynamic-param 0.5";
    scene.refuses(line, &["two criteria"], "");
    scene.refuses("resize adapter -o out --rank 4 --max-rank 0", &["--max-rank 0"], "");
    scene.refuses("combine adapter other -o out --max-rank 0", &["--max-rank 0"], "");
    for flags in ["--rank size:1MiB --conv-rank 2", "--rank 2 --conv-rank params:100"] {
        let line = format!("combine adapter other -o out {flags}");
        scene.refuses(&line, &["shared out over all modules", "--conv-rank"], "");
    }
}

#[test]
fn budgets_below_one_rank_everywhere() {
    let scene = pair();
    let line = "combine adapter other -o out --rank params:6";
    let says = ["params:6 is too small", "takes 7 parameters"];
    scene.refuses(line, &says, "the least budget is 7");
    scene.runs("combine adapter other -o out --rank params:7");
    let said = scene.refuses_late(
        "resize adapter -o small --rank size:100",
        &["is too small"],
        "the least",
    );
    let least = said.trim_end().rsplit(' ').next().expect("a number").to_owned();
    scene.runs(&format!("resize adapter -o small --rank size:{least}"));
    let bytes = scene.path("small/adapter_model.safetensors").metadata().expect("a file").len();
    assert_eq!(bytes.to_string(), least);
}

#[test]
fn adapters_that_do_not_fit_together() {
    let other = Peft::new(1, 1.0).linear(MODULE, 1, &[1.0; 5], &[1.0; 4]);
    let says = ["other", MODULE, "[4, 5]", "4 × 3 as in another adapter"];
    with(&other).refuses("combine adapter other -o out", &says, "");

    let other = Peft::new(2, 1.0).linear(MODULE, 2, &[1.0; 6], &[1.0; 8]);
    let scene = with(&other);
    scene.runs("combine adapter other -o fine");
    let line = "combine adapter other -o out --method peft-linear";
    scene.refuses(line, &["equal ranks", "1 and 2", MODULE], "");
    let line = "combine adapter other -o out --compat kohya";
    scene.refuses(line, &["equal ranks", "1 and 2"], "");
}

#[test]
fn scales_and_weights_out_of_all_measure() {
    let silent = Peft::new(1, 0.0).linear(MODULE, 1, &[1.0; 3], &[1.0; 4]);
    let scene = with(&silent);
    for how in ["--compat kohya", "--method cat --compat kohya"] {
        let line = format!("combine adapter other -o out {how}");
        scene.refuses(&line, &["root of every scale", MODULE], "");
    }
    scene.runs("combine adapter other -o fine");

    let loud = Peft::new(1, 1e300).linear(MODULE, 1, &[1.0; 3], &[1.0; 4]);
    let scene = with(&loud);
    scene.refuses("combine adapter other -o out", &["weight times scale", MODULE], "");
    scene.refuses_late("compare adapter other", &["weight times scale", MODULE], "");
    scene.refuses("combine adapter -w 1e300 -o out", &["weight times scale", MODULE], "");
}

#[test]
fn adapters_that_do_not_add_up() {
    let magnitude = format!("{MODULE}.lora_magnitude_vector");
    let dora = adapter(0.5).field("use_dora", true).tensor(&magnitude, &[4], &[1.0; 4]);
    let scene = with(&dora);
    let hint = "merge it into a base instead";
    let says = ["other", "dora updates depend on the base's weights", MODULE];
    scene.refuses("combine adapter other -o out", &says, hint);
    scene.refuses("resize other -o out --rank 1", &says, hint);
    scene.refuses_late("compare adapter other", &says, hint);

    let alora = adapter(0.5).field("alora_invocation_tokens", json!([1, 2]));
    let says = ["other/adapter_config.json", "`alora_invocation_tokens` is set"];
    let scene = with(&alora);
    scene.refuses("combine adapter other -o out", &says, "load it beside the base");

    let nan = Peft::new(1, 1.0).linear(MODULE, 1, &[1.0, f32::NAN, 1.0], &[1.0; 4]);
    let says = ["other", &key("lora_A.weight"), "element 1 is NaN"];
    let scene = with(&nan);
    scene.refuses("combine adapter other -o out", &says, "the training diverged");
    scene.refuses("resize other -o out --rank 1", &says, "the training diverged");
    scene.refuses_late("compare adapter other", &says, "the training diverged");
}

#[test]
fn outputs_that_are_in_the_way() {
    let scene = pair();
    scene.write("out/precious.txt", "mine");
    scene.refuses("combine adapter other -o out", &["out: it exists already"], "--force");
    for output in ["adapter", "adapter/below", "other/deep/er"] {
        let line = format!("combine adapter other -o {output} --force");
        let says = ["is, contains or lies inside the input"];
        scene.refuses(&line, &says, "choose an output path elsewhere");
    }
    let says = ["out.safetensors", "peft convention is a directory", "--to kohya"];
    scene.refuses("combine adapter other -o out.safetensors", &says, "");
    let says = ["kohya convention is one file", "ends in .safetensors"];
    scene.refuses("combine kohya.safetensors -o new", &says, "");
    scene.refuses("combine adapter other -o new --to kohya", &says, "");
    let line = "combine kohya.safetensors -o new --to peft";
    scene.refuses(line, &["its dots are flattened"], "--reference BASE");
    let says = ["convention `klingon` is unknown", "peft, gguf, mlx, comfyui, diffusers, kohya"];
    scene.refuses("combine adapter other -o new --to klingon", &says, "");
    let says = ["gguf convention is one file", "ends in .gguf"];
    scene.refuses("combine adapter other -o new --to gguf", &says, "");
    let line = "combine adapter other -o new.gguf --to gguf";
    let says = ["needs the base model's architecture"];
    scene.refuses(line, &says, "--reference BASE, the base model's directory with its config.json");
}

#[test]
fn narrow_types_that_overflow() {
    let loud = Peft::new(1, 1.0).linear(MODULE, 1, &[1e4; 3], &[1e6; 4]);
    let scene = with(&loud);
    let line = "combine other other -o out --dtype f16";
    let said = scene.refuses_late(line, &["outside the range of F16"], "wider type");
    assert!(said.contains(MODULE), "{said}");
}

#[test]
fn block_weights_of_another_count() {
    let scene = pair();
    let list = |count: usize| vec!["1"; count].join(",");
    let line = format!("combine kohya.safetensors -o k.safetensors --lbw {}", list(13));
    scene.refuses(&line, &["12, 17, 20 or 26 numbers; these are 13"], "");
    let line =
        format!("combine kohya.safetensors kohya.safetensors -o k.safetensors --lbw {}", list(17));
    scene.refuses(&line, &["1 list of block weights for 2 adapters", "--lbw"], "");
    let line = "combine kohya.safetensors -o k.safetensors --lbw 1,x";
    misused(&scene, line, &["`x` is no number"]);
}

#[test]
fn comparisons_of_nothing() {
    let scene = pair();
    misused(&scene, "compare adapter", &["ADAPTER"]);
    let hint = "one weight per adapter";
    scene.refuses_late("compare adapter other -w 1", &["1 weight for 2 adapters"], hint);
    let says = ["nowhere", "no such file or directory"];
    scene.refuses_late("compare adapter nowhere", &says, "");
    let wide = Peft::new(1, 1.0).linear(MODULE, 1, &[1.0; 5], &[1.0; 4]);
    with(&wide).refuses_late("compare adapter other", &["4 × 3 as in another adapter"], "");
}

#[test]
fn updates_that_underflow() {
    let scene = Scene::empty();
    kohya("a_b").save(&scene.path("k.safetensors"));
    let hint = "raise the scale or the weight, or write a wider type (--dtype f32)";
    for scale in ["1e-300", "1e-320"] {
        for line in ["resize k.safetensors --rank 1", "combine k.safetensors k.safetensors"] {
            let line = format!("{line} --scale {scale} -o out.safetensors");
            let says = ["nothing would be left of it", "lora_unet_a_b", "zero in F32"];
            scene.refuses(&line, &says, hint);
        }
        let line = format!("convert k.safetensors --to kohya --scale {scale} -o out.safetensors");
        scene.refuses_late(&line, &["nothing would be left of it"], hint);
    }
    let line = "combine k.safetensors k.safetensors --scale 1e-20 --dtype f16 -o out.safetensors";
    scene.refuses_late(line, &["zero in F16: nothing would be left of it"], hint);
    // Of updates that cancel nothing is left for another reason.
    scene.runs("combine k.safetensors k.safetensors -w 1 -1 --dtype f16 -o out.safetensors");
}
