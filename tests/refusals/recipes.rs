//! Recipes that must be refused: with the file, the line and the column, what was found and what could
//! stand there.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Write;

use crate::common::refusal::{Scene, adapter};

/// Rules about parameters are held to what rules about weights are.
#[test]
fn parameters_by_module() {
    let scene = scene();
    let own = |density: &str| {
        format!(
            "method: ties\nrank: 1\nadapters:\n- path: adapter\n  parameters:\n    density: {density}\n- other"
        )
    };
    let rule = |rule: &str| own(&format!("[{{{rule}}}, {{value: 1}}]"));
    let names = "`lora-tool inspect ADAPTER --modules` lists the names; the first rule that matches decides";
    for (recipe, says, hint) in [
        (
            rule("filter: q, vale: 1"),
            ":6:27: unknown key `vale`; a rule takes filter, value",
            "did you mean `value`?",
        ),
        (rule("filter: q"), ":6:15: a rule needs `value`", ""),
        (
            rule("filter: q, value: 0"),
            ":6:34: `density`: expected a number above 0 to 1, found `0`",
            "",
        ),
        (
            rule("filter: q, value: [0.5, 2]"),
            ":6:34: `density`: expected a number above 0 to 1, found `2`",
            "",
        ),
        (
            rule("filter: nowhere, value: 1"),
            ":6:24: no module of adapter is left for the rule `nowhere`",
            names,
        ),
        (own("[]"), ":6:14: `density`: expected a list of numbers, found an empty list", ""),
        (
            "adapters: [adapter, other]\nmethod: ties\nrank: 1\nparameters:\n  lambda: [{filter: nowhere, value: 1}]".to_owned(),
            ":5:21: no module is left for the rule `nowhere`",
            names,
        ),
        (
            "adapters: [adapter, other]\nmethod: dare-ties\nrank: 1\nparameters:\n  seed: [{value: 1}]".to_owned(),
            ":5:9: `seed` is one for all modules",
            "",
        ),
        (
            "adapters: [adapter, other]\nmethod: ties\nrank: 1\nparameters: {densty: 0.5}".to_owned(),
            ":4:14: `ties` does not take `densty`; it takes density, majority-sign, reduce, lambda",
            "did you mean `density`?",
        ),
    ] {
        refused(&scene, &recipe, says, hint);
    }
    // Nothing says which layer the head is in.
    let (down, up) = ([0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]);
    crate::common::Peft::new(1, 1.0).linear("lm_head", 1, &down, &up).save(&scene.path("head"));
    scene.write("r.yaml", own("[0.2, 0.5]").replace("path: adapter", "path: head"));
    let says = ["a gradient over the layers gives it no density"];
    scene.refuses("run r.yaml -o out", &says, "give it a rule of its own before");
    // What the method refuses of numbers together, it refuses of those of one module.
    let recipe = "method: della\nrank: 1\nadapters: [adapter, other]\nparameters:\n  epsilon: 0.1\n  density: [{value: 0.95}]";
    for base in ["", "base: base.safetensors\n"] {
        let recipe = recipe.replace("rank: 1\n", if base.is_empty() { "rank: 1\n" } else { base });
        scene.write("r.yaml", recipe);
        scene.refuses("run r.yaml -o out", &["leaves no room for an epsilon of 0.1"], "");
    }
}

/// `base.safetensors`, `adapter`, `other`.
fn scene() -> Scene {
    let scene = Scene::sound();
    adapter(-0.5).save(&scene.path("other"));
    scene
}

/// The recipe must be refused in just these words, with just this hint.
fn refused(scene: &Scene, recipe: &str, says: &str, hint: &str) {
    scene.write("r.yaml", recipe);
    let said = scene.refuses_late("run r.yaml -o out", &[], hint);
    let error = said.split_once("\nhint: ").map_or(said.trim_end(), |(error, _)| error);
    assert_eq!(error.strip_prefix("error: r.yaml"), Some(says), "{recipe}");
    scene.refuses("run r.yaml -o out", &[], hint);
}

const TOP: &str = "a recipe takes base, adapters, output, method, compat, space, module_weight, include, exclude, \
                   on_conflict, allow_disjoint, allow_unmatched, add_new, keep_tied, rank, conv_rank, max_rank, \
                   uniform, dtype, quantized, touched, quantize_like, as_trained, scales, rounding, rounding_seed, \
                   min_survival, residual, residual_rank, types, to, reference, title, trigger, \
                   max_shard_size, verify, receipt, card, no_provenance, resume, alpha, rslora, scale, convention, ignore_field, residual_base, orientation, parameters, seed";
const ONE: &str = "an adapter takes path, weight, parameters, include, exclude, lbw";

#[test]
fn keys_nobody_knows() {
    let scene = scene();
    let top = |at: &str, key: &str| format!(":{at}: unknown key `{key}`; {TOP}");
    refused(&scene, "adaptres: [adapter]\n", &top("1:1", "adaptres"), "did you mean `adapters`?");
    refused(
        &scene,
        "adapters: [adapter]\n\nranks: 4\n",
        &top("3:1", "ranks"),
        "did you mean `rank`?",
    );
    refused(&scene, "adapters: [adapter]\nqqqqqq: 4\n", &top("2:1", "qqqqqq"), "");
    // What mergekit's files have.
    for (key, hint) in [
        ("models", "what is merged stands below `adapters`"),
        ("merge_method", "it is called `method` here"),
        ("base_model", "it is called `base` here"),
        ("slices", "weights by layer are `weight: [0, 1]`"),
        ("density", "parameters of the method stand below `parameters`"),
        ("weight", "each adapter below `adapters` has its own `weight`"),
    ] {
        refused(&scene, &format!("{key}: [x]\n"), &top("1:1", key), hint);
    }
    let one = |at: &str, key: &str| format!(":{at}: unknown key `{key}`; {ONE}");
    let recipe = "adapters:\n  - path: adapter\n    wieght: 0.5\n";
    refused(&scene, recipe, &one("3:5", "wieght"), "did you mean `weight`?");
    let recipe = "adapters: [{model: adapter}]";
    refused(&scene, recipe, &one("1:13", "model"), "an adapter's file or directory is its `path`");
    let recipe = "adapters:\n- path: adapter\n  weight:\n  - {filter: q, value: 1, vale: 2}\n";
    let says = ":4:27: unknown key `vale`; a rule takes filter, value";
    refused(&scene, recipe, says, "did you mean `value`?");
}

#[test]
fn keys_that_are_there_twice_or_not_at_all() {
    let scene = scene();
    let says = ":2:1: `adapters` is given twice, first in line 1";
    refused(&scene, "adapters: [adapter]\nadapters: [other]\n", says, "");
    let says = ":3:1: `max-rank` is given twice, first in line 2";
    refused(&scene, "adapters: [adapter]\nmax_rank: 1\nmax-rank: 2\n", says, "");
    refused(
        &scene,
        "adapters: [{path: adapter, weight: 1.0, \"weight\": 1}]",
        ":1:41: `weight` is given twice, first in line 1",
        "",
    );
    refused(
        &scene,
        "adapters: [{path: a, weight: 1, parameters: {weight: 1}}]",
        ":1:46: `weight` is given twice, first in line 1",
        "",
    );
    let recipe = "adapters: [adapter]\nmethod: dare-ties\nrank: 1\nseed: 1\nparameters: {seed: 2}";
    refused(&scene, recipe, ":5:14: `seed` is given twice, first in line 4", "");
    refused(&scene, "rank: 4\n", ":1:1: a recipe needs `adapters`", "");
    refused(&scene, "adapters:\n  - weight: 1\n", ":2:5: an adapter needs `path`", "");
    let recipe = "adapters: [{path: adapter, weight: [{filter: q}]}]";
    refused(&scene, recipe, ":1:37: a rule needs `value`", "");
    scene.write("r.yaml", "adapters: [adapter]\n");
    scene.refuses("run r.yaml", &["error: r.yaml: it names no `output`"], "");
}

#[test]
fn values_of_another_kind() {
    let scene = scene();
    let quotes = "leave out the quotes";
    for (recipe, says, hint) in [
        (
            "adapters: adapter",
            ":1:11: `adapters`: expected a list of adapters, found `adapter`",
            "",
        ),
        ("adapters: []", ":1:11: `adapters`: expected a list of adapters, found an empty list", ""),
        (
            "adapters: [[adapter]]",
            ":1:12: an adapter: expected keys and their values, found a list",
            "",
        ),
        ("adapters: [{path: }]", ":1:17: `path`: expected a text, found nothing", ""),
        ("adapters: [{path: [a]}]", ":1:19: `path`: expected a text, found a list", ""),
        ("- adapter", ":1:1: a recipe: expected keys and their values, found a list", ""),
        (
            "adapters: [adapter]\nmax_rank: 1.5",
            ":2:11: `max_rank`: expected a whole number, found `1.5`",
            "",
        ),
        (
            "adapters: [adapter]\nmax_rank: -1",
            ":2:11: `max_rank`: expected a whole number, found `-1`",
            "",
        ),
        (
            "adapters: [adapter]\nuniform: yes",
            ":2:10: `uniform`: expected true or false, found `yes`",
            "",
        ),
        (
            "adapters: [adapter]\nuniform: \"true\"",
            ":2:10: `uniform`: expected true or false, found `true` in quotes",
            quotes,
        ),
        (
            "adapters: [adapter]\nrank: {energy: 1}",
            ":2:7: `rank`: expected a text, found keys and their values",
            "",
        ),
        ("adapters: [adapter]\nrank: energy:2", ":2:7: `rank`: `2` is no share: 0 < share ≤ 1", ""),
        (
            "adapters: [adapter]\ndtype: int8",
            ":2:8: `dtype`: expected keep, f32, f16, bf16, float32, float16, bfloat16, fp32, fp16, float, found `int8`",
            "",
        ),
        (
            "adapters: [adapter]\ncompat: peftt",
            ":2:9: `compat`: expected peft, kohya, mergekit, found `peftt`",
            "",
        ),
        (
            "adapters: [adapter]\non_conflict: last",
            ":2:14: `on_conflict`: expected first, average, drop, found `last`",
            "",
        ),
        (
            "base: b\nadapters: [adapter]\nmax_shard_size: much",
            ":3:17: `max_shard_size`: expected a size such as 5GB, or keep, found `much`",
            "",
        ),
        (
            "adapters: [adapter]\ninclude: '(q'",
            ":2:10: `include`: `(q` is no regular expression: unclosed group",
            "",
        ),
        (
            "adapters: [{path: adapter, lbw: [1, 2]}]",
            ":1:33: block weights come as 12, 17, 20 or 26 numbers; these are 2",
            "",
        ),
        (
            "adapters: [adapter]\nalpha: 1\nscale: 1",
            ":3:1: `alpha` and `scale` say the same; give one of them",
            "",
        ),
        (
            "adapters: [adapter]\nrslora: true",
            ":2:1: `rslora` says what `alpha` means, which is not given",
            "",
        ),
    ] {
        refused(&scene, recipe, says, hint);
    }
}

#[test]
fn weights_that_are_no_numbers() {
    let scene = scene();
    for (weight, found, hint) in [
        ("\"0.5\"", "`0.5` in quotes", "leave out the quotes"),
        (".nan", "`.nan`", ""),
        (".inf", "`.inf`", ""),
        ("nan", "`nan`", ""),
        ("-inf", "`-inf`", ""),
        ("1e999", "`1e999`", ""),
        ("0,5", "`0,5`", ""),
        ("0x10", "`0x10`", ""),
        ("1_000", "`1_000`", ""),
        ("true", "`true`", ""),
        ("", "nothing", ""),
        ("{value: 1}", "keys and their values", ""),
    ] {
        let recipe = format!("adapters:\n- path: adapter\n  weight: {weight}\n");
        scene.write("r.yaml", &recipe);
        // Nothing is where the key ends.
        let at = format!("error: r.yaml:3:{}", if weight.is_empty() { 9 } else { 11 });
        let says = format!("`weight`: expected a number, found {found}");
        scene.refuses("run r.yaml -o out", &[&at, &says], hint);
    }
    let recipe = "adapters: [{path: adapter, weight: [1, x]}]";
    refused(&scene, recipe, ":1:40: `weight`: expected a number, found `x`", "");
    let recipe = "adapters: [{path: adapter, weight: [{value: [1, .nan]}]}]";
    refused(&scene, recipe, ":1:49: `value`: expected a number, found `.nan`", "");
    let recipe = "adapters: [{path: adapter, weight: [{value: 1}, 2]}]";
    refused(&scene, recipe, ":1:49: a rule: expected keys and their values, found `2`", "");
}

#[test]
fn parameters_of_the_method() {
    let scene = scene();
    let ties = "adapters: [adapter, other]\nmethod: ties\nrank: 1\nparameters:\n  density: 0.5\n";
    for (change, by, says) in [
        (
            "density: 0.5",
            "density: -0.5",
            ":5:12: `density`: expected a number above 0 to 1, found `-0.5`",
        ),
        ("density: 0.5", "density: .nan", ":5:12: `density`: expected a number, found `.nan`"),
        (
            "density: 0.5",
            "density: [1, 1, 1]",
            ":5:12: `density`: expected one number, or one for each of the 2 adapters, found `1,1,1`",
        ),
        (
            "density: 0.5",
            "gamma: 0.5",
            ":5:3: `ties` does not take `gamma`; it takes density, majority-sign, reduce, lambda",
        ),
        (
            "density: 0.5",
            "normalize: true",
            ":5:3: `ties` does not take `normalize`; it takes density, majority-sign, reduce, lambda",
        ),
        ("density: 0.5", "reduce: most", ":5:11: `reduce`: expected mean or sum, found `most`"),
        (
            "method: ties",
            "method: linear",
            ":5:3: `linear` does not take `density`; it takes lambda",
        ),
        ("method: ties", "to: peft", ":5:3: `linear` does not take `density`; it takes lambda"),
    ] {
        let recipe = ties.replace(change, by);
        refused(&scene, &recipe, says, "");
    }
    let recipe = "adapters: [adapter]\nseed: 1\n";
    refused(&scene, recipe, ":2:1: `linear` does not take `seed`; it takes lambda", "");
    scene.write("r.yaml", ties.replace("ties", "tie"));
    let says = ["error: r.yaml:2:9: there is no method `tie`; there are linear, cat, "];
    scene.refuses("run r.yaml -o out", &says, "did you mean `ties`?");
    let own = "method: ties\nrank: 1\nadapters: [{path: adapter, parameters: {lambda: 1}}]";
    let says =
        ":3:49: `lambda` is one for all adapters; it stands below the recipe's own `parameters`";
    refused(&scene, own, says, "");
    let own = own.replace("lambda: 1", "density: 0");
    refused(&scene, &own, ":3:50: `density`: expected a number above 0 to 1, found `0`", "");
    // What only the verb can tell has the recipe's name.
    let recipe = "adapters: [adapter, other]\nmethod: tsv\nspace: core";
    scene.write("r.yaml", recipe);
    scene.refuses("run r.yaml -o out", &["error: r.yaml: --space core is for methods"], "");
}

#[test]
fn keys_of_the_other_verb() {
    let scene = scene();
    let with = "for an adapter made of adapters; with a `base`, they are merged into it";
    for key in
        ["rank: 1", "conv_rank: 1", "max_rank: 1", "uniform: true", "space: core", "to: peft"]
    {
        let (name, _) = key.split_once(':').unwrap_or((key, ""));
        let recipe = format!("base: base.safetensors\nadapters: [adapter]\n{key}\n");
        refused(&scene, &recipe, &format!(":3:1: `{name}` is {with}"), "");
    }
    let without = "for a merge; without a `base`, the adapters become one adapter";
    for key in [
        "quantized: refuse",
        "max_shard_size: 1GB",
        "allow_unmatched: true",
        "keep_tied: true",
        "verify: true",
        "receipt: x",
    ] {
        let (name, _) = key.split_once(':').unwrap_or((key, ""));
        let recipe = format!("adapters: [adapter]\n{key}\n");
        refused(&scene, &recipe, &format!(":2:1: `{name}` is {without}"), "");
    }
    let list = ["1"; 12].join(", ");
    let recipe = format!("base: base.safetensors\nadapters: [{{path: adapter, lbw: [{list}]}}]\n");
    let says =
        ":2:33: `lbw` is for an adapter made of adapters; with a `base`, use `weight` with rules";
    refused(&scene, &recipe, says, "");
}

#[test]
fn rules_that_fit_no_module() {
    let scene = scene();
    let names = "`lora-tool inspect ADAPTER --modules` lists the names";
    for base in ["", "base: base.safetensors\n"] {
        let line = 1 + usize::from(!base.is_empty());
        let at = |column: usize, rule: &str| {
            format!(":{line}:{column}: no module of adapter is left for the rule `{rule}`")
        };
        let recipe = |rules: &str| format!("{base}adapters: [other, {{path: adapter, {rules}}}]");
        let rules = "weight: [{filter: mlp, value: 2}, {value: 1}]";
        refused(&scene, &recipe(rules), &at(53, "mlp"), names);
        refused(&scene, &recipe("include: mlp"), &at(44, "mlp"), names);
        refused(&scene, &recipe("exclude: mlp"), &at(44, "mlp"), names);
        // Behind one that takes all there is nothing left.
        let rules = "weight: [{value: 1}, {filter: q_proj, value: 2}]";
        refused(&scene, &recipe(rules), &at(65, "q_proj"), names);
        // The other way round, some module must have a weight.
        let two = "weight: [{filter: 'layers.1', value: 1}]";
        scene.write("r.yaml", recipe(two));
        let says = ["adapter: `model.layers.0.q_proj`: no rule gives it a weight"];
        scene.refuses("run r.yaml -o out", &says, "end the list with a rule without a filter");
    }
    // Nothing is left of any adapter.
    scene.write("r.yaml", "adapters: [{path: adapter, exclude: q_proj}]");
    scene.refuses("run r.yaml -o out", &["no module of any adapter is left"], "lists the names");
}

#[test]
fn gradients_without_layers() {
    let scene = Scene::empty();
    crate::common::Tensors::new()
        .f32("lm_head.weight", &[4, 3], &[0.5; 12])
        .save(&scene.path("base.safetensors"));
    crate::common::Peft::new(1, 1.0)
        .linear("lm_head", 1, &[1.0; 3], &[1.0; 4])
        .save(&scene.path("adapter"));
    for base in ["", "base: base.safetensors\n"] {
        scene.write("r.yaml", format!("{base}adapters: [{{path: adapter, weight: [0, 1]}}]"));
        let says = ["adapter: `lm_head`: a gradient over the layers gives it no weight"];
        scene.refuses("run r.yaml -o out", &says, "give it a rule of its own");
    }
    let base = "base: base.safetensors\nmethod: linear\ncompat: mergekit\n";
    scene.write("r.yaml", format!("{base}adapters: [{{path: adapter, weight: [{{value: 1}}]}}]"));
    let says = ["error: r.yaml: mergekit divides by the sum of the weights"];
    scene.refuses("run r.yaml -o out", &says, "");
}

#[test]
fn texts_that_are_no_recipe() {
    let scene = scene();
    refused(&scene, "", ":1:1: it is empty", "");
    refused(&scene, "# nothing\n", ":1:1: it is empty", "");
    refused(
        &scene,
        "a: 1\n---\nb: 1\n",
        ":2:1: a recipe is one document, and here begins another",
        "",
    );
    refused(&scene, "adapters: !x [a]", ":1:14: tags (`!…`) mean nothing in a recipe", "");
    refused(&scene, "adapters: &x [*x]", ":1:15: an alias cannot stand inside what it is for", "");
    let deep = format!("{}{}", "[".repeat(30), "]".repeat(30));
    refused(&scene, &deep, ":1:17: it is nested deeper than any recipe is", "");
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{below}]").expect("a String takes it");
    }
    scene.write("r.yaml", &bomb);
    let says = ["error: r.yaml:", "its aliases unfold to more than any recipe says"];
    scene.refuses("run r.yaml -o out", &says, "");
    for (text, says) in [
        ("adapters: [a", "r.yaml:1:"),
        ("a:\n\t- b", "r.yaml:2:"),
        ("a: *nowhere", "r.yaml:1:4: not YAML: "),
        ("a: \"\\q\"", "r.yaml:1:"),
    ] {
        scene.write("r.yaml", text);
        scene.refuses("run r.yaml -o out", &[says, "not YAML"], "");
    }
    scene.write("r.yaml", b"a: \xff");
    scene.refuses("run r.yaml -o out", &["r.yaml:1:1: not YAML: it is not UTF-8"], "");
    scene.write("r.yaml", "x".repeat((1 << 20) + 1));
    scene.refuses("run r.yaml -o out", &["longer than 1 MiB"], "");
    scene.refuses("run nowhere.yaml -o out", &["error: nowhere.yaml: no such file"], "");
    scene.refuses("run adapter -o out", &["error: adapter: it is a directory"], "");
    scene.refuses("run base.safetensors -o out", &["error: base.safetensors:1:2: not YAML"], "");
}

#[test]
fn outputs_in_the_way() {
    let scene = scene();
    scene.write("r.yaml", "adapters: [adapter]\noutput: other\n");
    scene.refuses("run r.yaml", &["error: other: it exists already"], "pass --force");
    scene.refuses("run r.yaml -o adapter -f", &["inside the input adapter"], "elsewhere");
    scene.refuses("run r.yaml -o r.yaml -f", &["inside the input r.yaml"], "elsewhere");
}
