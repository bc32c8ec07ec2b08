//! Options about modules that decide nothing, in every command that takes them; and what they leave out need
//! not fit.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use crate::common::refusal::{MODULE, Scene, adapter, base};
use crate::common::{Peft, Tensors};

const HINT: &str = "lora-tool inspect ADAPTER --modules";

/// A base, an adapter, and a fine-tune of the base.
fn scene() -> Scene {
    let scene = Scene::empty();
    base().save(&scene.path("base.safetensors"));
    adapter(1.0).save(&scene.path("adapter"));
    let tuned = Tensors::new().f32(&format!("{MODULE}.weight"), &[4, 3], &[0.75; 12]);
    tuned.save(&scene.path("tuned.safetensors"));
    scene
}

#[test]
fn options_that_match_nothing_are_errors() {
    let scene = scene();
    let selects = ["--include nosuch", "--exclude nosuch"];
    let weighs = ["--module-weight nosuch=0.5", "--module-weight q_proj=0.5 --module-weight .=1"];
    let lines = [
        ("merge base.safetensors adapter -o out", true),
        ("merge base.safetensors tuned.safetensors -o out", true),
        ("combine adapter adapter -o out", true),
        ("resize adapter --rank 1 -o out", false),
        ("extract base.safetensors tuned.safetensors --rank 1 -o out", false),
    ];
    for (line, weighed) in lines {
        for flags in selects.iter().chain(weighs.iter().filter(|_| weighed)) {
            let option = flags.split([' ', '=']).next().expect("an option");
            let pattern = flags.split([' ', '=']).nth(1).expect("a pattern");
            let says = format!("no module is left for {option} `{pattern}`");
            scene.refuses(&format!("{line} {flags}"), &[&says], HINT);
        }
    }
}

#[test]
fn weights_of_0_for_all_leave_nothing() {
    let scene = scene();
    let says = ["no module of any adapter is left"];
    for line in [
        "merge base.safetensors adapter -w 0 -o out",
        "merge base.safetensors tuned.safetensors -w 0 -o out",
        "merge base.safetensors adapter --module-weight .=0 -o out",
        "combine adapter adapter -w 0 0 -o out",
    ] {
        scene.refuses(line, &says, "lists the names");
    }
}

#[test]
fn what_is_left_out_need_not_fit() {
    let scene = scene();
    let (down, up) = ([1.0; 5], [1.0; 7]);
    let more = adapter(1.0).linear("model.vision.0.proj", 1, &down, &up);
    more.save(&scene.path("more"));
    let merge = "merge base.safetensors more";
    scene.refuses(&format!("{merge} -o out"), &["1 of 2"], "is this the base");
    for (at, flags) in
        ["--exclude vision", "--include q_proj", "--module-weight vision=0"].into_iter().enumerate()
    {
        scene.runs(&format!("{merge} {flags} -o out-{at}"));
    }
    // A wrong shape is no concern either.
    let wide = Peft::new(1, 1.0).linear(MODULE, 1, &[0.0, 0.0, 1.0], &[0.0, 1.0, 0.0, 0.0]).linear(
        "model.layers.1.q_proj",
        1,
        &[1.0; 9],
        &[1.0; 9],
    );
    wide.save(&scene.path("wide"));
    let more = base().f32("model.layers.1.q_proj.weight", &[4, 3], &[0.5; 12]);
    more.save(&scene.path("two.safetensors"));
    scene.refuses("merge two.safetensors wide -o out", &["[9, 9]"], "is this the base");
    scene.runs("merge two.safetensors wide --exclude layers.1 -o out-wide");
}
