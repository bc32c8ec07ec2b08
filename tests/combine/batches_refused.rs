//! Batches that cannot be what was meant: refused before any work, with the place in the file.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use crate::common::refusal::Scene;

fn scene() -> Scene {
    let scene = Scene::sound();
    std::fs::create_dir(scene.path("loras")).expect("a folder");
    scene.write("loras/a.safetensors", "");
    scene.write("loras/b.safetensors", "");
    scene
}

#[test]
fn what_the_file_says_is_held_to_the_table() {
    let scene = scene();
    let resize = "- {verb: resize, adapter: adapter, rank: 1, output: out}";
    let cases = [
        ("jobs: []", "1:1: unknown key `jobs`", "stands below `items`"),
        ("items: []", "1:8: `items`: expected a list of items", ""),
        ("items:\n- {adapter: adapter}", "2:3: an item needs `verb`", ""),
        (
            "items:\n- {verb: shrink, adapter: a}",
            "2:10: `verb`: expected resize, convert, check",
            "",
        ),
        (
            "items:\n- {verb: resize, adapter: adapter, to_: kohya}",
            "2:36: unknown key `to_`",
            "`to`",
        ),
        ("items:\n- {verb: resize, adapter: adapter, output: x}", "needs `rank`", ""),
        ("items:\n- {verb: resize, adapter: adapter, rank: 1}", "needs `output`", ""),
        ("items:\n- {verb: merge, adapter: adapter, output: x}", "needs `base`", ""),
        ("items:\n- {verb: convert, adapter: adapter, output: x}", "needs `to`", ""),
        ("items:\n- {verb: resize, adapter: adapter, rank: much, output: x}", "`rank`: ", ""),
        (
            "defaults: {base: x}\nitems:\n- {verb: check, adapter: adapter}",
            "1:12: `base` is a key of no item",
            "",
        ),
        ("items:\n- {verb: check, adapter: none/*}", "2:26: nothing matches `none/*`", ""),
        ("items:\n- {verb: check, adapter: 's3://b/*'}", "patterns are for paths", ""),
        (
            "items:\n- {verb: resize, adapter: adapter, rank: 1, output: 'x/{stem}'}",
            "`{name}` is the input's",
            "",
        ),
        (&format!("items:\n{resize}\n{resize}"), "both write to out", ""),
        (
            "items:\n- {verb: resize, adapter: loras/*, rank: 1, output: small}",
            "both write to small; put {name} into the output",
            "",
        ),
        (
            &format!("items:\n{resize}\n- {{verb: check, adapter: out}}"),
            "the first reads what the second writes, out; items are made in no order",
            "",
        ),
        (
            "items:\n- {verb: resize, adapter: adapter, rank: 1, output: adapter/small}",
            "would write into an input",
            "",
        ),
    ];
    for (text, says, hint) in cases {
        scene.write("jobs.yaml", text);
        scene.refuses("batch jobs.yaml", &["error: jobs.yaml", says], hint);
    }
    scene.refuses("batch nothing.yaml", &["nothing.yaml: no such file"], "");
}

#[test]
fn inputs_and_outputs_are_looked_at_before_any_work() {
    let scene = scene();
    let jobs =
        "items:\n- {verb: resize, adapter: [adapter, nowhere], rank: 1, output: 'small-{name}'}\n";
    scene.write("jobs.yaml", jobs);
    scene.refuses("batch jobs.yaml", &["error: nowhere: "], "");
    scene.write("jobs.yaml", jobs.replace(", nowhere", ""));
    scene.runs("batch jobs.yaml");
    scene.refuses("batch jobs.yaml", &["error: small-adapter: "], "--force");
    scene.runs("batch jobs.yaml --force");
    scene.refuses_late("batch jobs.yaml --plan plan.json", &["small-adapter: "], "--force");
    let merge = "items:\n- {verb: merge, base: base.safetensors, adapter: adapter, output: m, receipt: r}\n";
    scene.write("jobs.yaml", merge);
    scene.refuses_late("batch jobs.yaml --plan plan.json", &["`receipt`"], "");
}
