//! Recipes: the command line's results bit for bit, weights by module against merges that give them
//! otherwise, and what the output says of where it comes from.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::refusal::{Scene, tree};
use crate::common::{Read, fixture, read};
use lora_tool::format::{Access, Checkpoint};
use regex::Regex;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A scene with `base`, `style`, `task` and `kohya.safetensors` of the fixtures.
fn llama() -> Scene {
    let scene = Scene::empty();
    for (name, bytes) in tree(&fixture("llama")) {
        if fixture("llama").join(&name).is_file() {
            scene.write(&name.to_string_lossy(), bytes);
        }
    }
    scene
}

/// The tensors that a recipe makes, and those of a command line that says the same.
fn both(scene: &Scene, recipe: &str, line: &str) -> [BTreeMap<String, Read>; 2] {
    for old in ["by-recipe", "by-line"] {
        let _ = std::fs::remove_dir_all(scene.path(old));
    }
    scene.write("recipe.yaml", recipe);
    scene.runs("run recipe.yaml -o by-recipe");
    scene.runs(&format!("{line} -o by-line"));
    ["by-recipe", "by-line"].map(|name| tensors(&scene.path(name)))
}

fn tensors(path: &Path) -> BTreeMap<String, Read> {
    let adapter = path.join("adapter_model.safetensors");
    read(if adapter.is_file() { &adapter } else { path })
}

fn same(scene: &Scene, recipe: &str, line: &str) {
    let [by_recipe, by_line] = both(scene, recipe, line);
    assert!(!by_line.is_empty(), "{line}");
    assert!(by_recipe == by_line, "{recipe}\nis not\n{line}");
}

fn metadata(file: &Path) -> BTreeMap<String, String> {
    let file = Checkpoint::open(file, Access::Map).expect("a readable file");
    let metadata = file.shards.first().and_then(|shard| shard.header.metadata.clone());
    metadata.expect("metadata").into_iter().collect()
}

fn sha256(path: &Path) -> String {
    format!("{:x}", Sha256::digest(std::fs::read(path).expect("a readable file")))
}

#[test]
fn recipes_are_the_command_line_bit_for_bit() {
    let scene = llama();
    let adapters = "adapters: [{path: style, weight: 0.7}, {path: task, weight: -0.3}]\n";
    let line = "style:0.7 task:-0.3";
    for (recipe, options) in [
        ("", ""),
        ("rank: 4", "--rank 4"),
        ("rank: energy:0.9\nmax-rank: 5", "--rank energy:0.9 --max-rank 5"),
        ("rank: lossless\nuniform: true\ndtype: f32", "--rank lossless --uniform --dtype f32"),
        ("method: cat", "--method cat"),
        ("method: ties\ncompat: mergekit\nrank: 4", "--method ties --compat mergekit --rank 4"),
        ("method: slerp\nparameters: {t: 0.25}", "--method slerp --t 0.25"),
        (
            "method: ties\nparameters: {density: [0.5, 0.4], majority_sign: frequency}\nrank: 4",
            "--method ties --density 0.5,0.4 --majority-sign frequency --rank 4",
        ),
        ("method: dare_ties\nseed: 7\nspace: core", "--method dare-ties --seed 7 --space core"),
        ("include: mlp\nexclude: up_proj", "--include mlp --exclude up_proj"),
    ] {
        same(
            &scene,
            &format!("{adapters}{recipe}\n"),
            format!("combine {line} {options}").trim_end(),
        );
    }
    for (recipe, options) in [
        ("", ""),
        ("dtype: float32", "--dtype f32"),
        ("max_shard_size: 50kB", "--max-shard-size 50kB"),
        ("method: ties\nparameters:\n  density: 0.3\n", "--method ties --density 0.3"),
        ("method: karcher\ninclude: layers.1", "--method karcher --include layers.1"),
        ("method: dare-linear\nparameters: {seed: 3}", "--method dare-linear --seed 3"),
    ] {
        let recipe = format!("base: base\n{adapters}{recipe}\n");
        same(&scene, &recipe, format!("merge base {line} {options}").trim_end());
    }
}

#[test]
fn an_adapter_has_parameters_of_its_own() {
    let scene = llama();
    let recipe = "
method: ties
rank: 4
parameters: {density: 0.3}
adapters:
  - path: style
    parameters: {density: 0.6, weight: 0.5}
  - task
";
    let line = "combine style:0.5 task --method ties --rank 4 --density 0.6,0.3";
    same(&scene, recipe, line);
    // The method's own default, for those that say nothing.
    let recipe = recipe.replace("parameters: {density: 0.3}\n", "");
    same(&scene, &recipe, &line.replace("0.6,0.3", "0.6,0.2"));
}

/// As weights are: the first filter that matches, gradients over the layers; where no rule matches, what
/// holds for all adapters.
#[test]
fn parameters_by_module_and_layer() {
    let scene = llama();
    let adapters =
        |own: &str| format!("adapters:\n- path: style\n  parameters: {{density: {own}}}\n- task\n");
    for verb in ["combine", "merge base"] {
        let base = if verb == "combine" { "rank: 4\n" } else { "base: base\n" };
        let rank = if verb == "combine" { " --rank 4" } else { "" };
        let by_rules = "[{filter: down_proj, value: 0.4}, {filter: mlp, value: [0.2, 0.6]}]";
        let head = format!("{base}method: ties\nparameters: {{density: 0.3}}\n");
        // (what the modules are, their density by the rules)
        let parts = [
            ("down_proj", "0.4"),
            (r"layers\.0\.mlp\.(up|gate)", "0.2"),
            (r"layers\.1\.mlp\.(up|gate)", "0.6"),
            ("attn", "0.3"),
        ];
        let of_all = format!(
            "{base}method: ties\nparameters: {{density: {}, {{value: 0.3}}]}}\nadapters: [style, {{path: task, parameters: {{density: 0.3}}}}]\n",
            by_rules.trim_end_matches(']')
        );
        let recipes = [format!("{head}{}", adapters(by_rules)), of_all];
        for (recipe, (modules, density)) in
            recipes.iter().flat_map(|recipe| parts.map(|part| (recipe, part)))
        {
            let line = format!("{verb} style task --method ties{rank} --density {density},0.3");
            let [recipe, line] = both(&scene, recipe, &format!("{line} --include {modules}"));
            let modules = Regex::new(modules).expect("a regular expression");
            let of_part = line.iter().filter(|(name, _)| modules.is_match(name));
            let mut seen = 0;
            for (name, own) in of_part {
                assert!(recipe.get(name) == Some(own), "{verb}: {name} at {density}");
                seen += 1;
            }
            assert!(seen > 0, "{verb}: {modules}");
        }
    }
    // Numbers that are one for all adapters, and methods that look at inner products.
    let halves =
        "base: base\nadapters: [style, task]\nmethod: slerp\nparameters: {t: [0.25, 0.75]}\n";
    for (layer, t) in [("layers.0", "0.25"), ("layers.1", "0.75")] {
        let line = format!("merge base style task --method slerp --t {t} --include {layer}");
        let [recipe, line] = both(&scene, halves, &line);
        for (name, own) in line.iter().filter(|(name, _)| name.contains(layer)) {
            assert!(recipe.get(name) == Some(own), "{name} at {t}");
        }
    }
}

/// Paths are relative to the working directory then.
#[test]
fn a_recipe_from_standard_input() {
    let scene = llama();
    let text = "adapters: [style, {path: ./task, weight: 0.5}]\nrank: 4\noutput: piped\n";
    let pipe = |text: &str| {
        let mut command = crate::common::lora_tool();
        command.current_dir(scene.path("")).args(["run", "-"]).write_stdin(text);
        command.output().expect("it runs")
    };
    assert!(pipe(text).status.success());
    scene.runs("combine style task:0.5 --rank 4 -o by-line");
    assert!(tensors(&scene.path("piped")) == tensors(&scene.path("by-line")));
    let said = metadata(&scene.path("piped/adapter_model.safetensors"));
    assert_eq!(said["lora_tool.recipe"], text);
    let wrong = pipe("adapters: [style]\nranks: 4\n");
    assert_eq!(wrong.status.code(), Some(2));
    let said = String::from_utf8(wrong.stderr).expect("UTF-8");
    assert!(said.starts_with("error: -:2:1: unknown key `ranks`"), "{said}");
}

#[test]
fn kohyas_block_weights() {
    let scene = Scene::empty();
    let module = "lora_unet_down_blocks_0_attentions_0_proj_in";
    let one = |name: &str| format!("{module}.{name}.weight");
    for (file, value) in [("a.safetensors", 1.0), ("b.safetensors", 2.0)] {
        crate::common::Tensors::new()
            .f32(&one("lora_down"), &[1, 3], &[value; 3])
            .f32(&one("lora_up"), &[4, 1], &[1.0; 4])
            .save(&scene.path(file));
    }
    let list = |second: &str| format!("1,{second}{}", ",1".repeat(15));
    let recipe =
        format!("adapters: [{{path: a.safetensors, lbw: [{}]}}, b.safetensors]", list("0.5"));
    scene.write("recipe.yaml", recipe);
    scene.runs("run recipe.yaml -o recipe.safetensors");
    let lists = format!("--lbw {} --lbw {}", list("0.5"), list("1"));
    scene.runs(&format!("combine a.safetensors b.safetensors {lists} -o line.safetensors"));
    assert!(read(&scene.path("recipe.safetensors")) == read(&scene.path("line.safetensors")));
}

/// `--module-weight` takes the last rule that matches, a recipe the first.
#[test]
fn rules_weigh_modules() {
    let scene = llama();
    let adapter = "{path: style, weight: [{filter: down_proj, value: 0.25}, {filter: mlp, value: 0.5}, {value: 2}]}";
    let rules = "--module-weight .=2 --module-weight mlp=0.5 --module-weight down_proj=0.25";
    same(&scene, &format!("adapters: [{adapter}]"), &format!("combine style {rules}"));
    same(
        &scene,
        &format!("base: base\nadapters: [{adapter}]"),
        &format!("merge base style {rules}"),
    );
    // A weight of 0 leaves out, as exclude does; mergekit's `*` is all.
    let adapter = "{path: style, weight: [{filter: mlp, value: 0}, {filter: '*', value: 1}]}";
    same(&scene, &format!("adapters: [{adapter}]"), "combine style --exclude mlp");
    same(&scene, &format!("base: base\nadapters: [{adapter}]"), "merge base style --exclude mlp");
}

/// Each adapter has its own; a method sees the weights that its module has.
#[test]
fn rules_belong_to_one_adapter() {
    let scene = llama();
    let rules = "{path: style, weight: [{filter: mlp, value: 0.5}, {value: 0.25}]}, {path: task, weight: 0.3, include: mlp}";
    for method in ["linear", "ties", "karcher"] {
        let recipe = format!("base: base\nmethod: {method}\nadapters: [{rules}]");
        // The mlp's part, and that of all others, in merges of their own.
        let only = |line: &str, what: &str| format!("merge base {line} --method {method} {what}");
        let [recipe, mlp] = both(&scene, &recipe, &only("style:0.5 task:0.3", "--include mlp"));
        std::fs::remove_dir_all(scene.path("by-line")).expect("removed");
        scene.runs(&format!("{} -o by-line", only("style:0.25", "--exclude mlp")));
        let rest = tensors(&scene.path("by-line"));
        for (name, read) in &recipe {
            // The rest of karcher's weights is task's, which has no part there.
            let expected = if name.contains("mlp") { &mlp } else { &rest };
            if method != "karcher" || name.contains("mlp") {
                assert!(expected.get(name) == Some(read), "{method} {name}");
            }
        }
    }
}

#[test]
fn karcher_shares_by_the_weights_of_the_module() {
    let scene = llama();
    for base in ["", "base: base\n"] {
        let verb = if base.is_empty() { "combine" } else { "merge base" };
        let rules =
            "adapters: [{path: style, weight: [{filter: mlp, value: 0.5}, {value: 3}]}, task]";
        let recipe = format!("{base}method: karcher\ninclude: mlp.down_proj\n{rules}");
        scene.write("recipe.yaml", &recipe);
        // `value: 3` is for modules that the recipe leaves out.
        same(
            &scene,
            &recipe,
            &format!("{verb} style:0.5 task --method karcher --include mlp.down_proj"),
        );
    }
}

#[test]
fn gradients_run_from_the_first_layer_to_the_last() {
    let scene = llama();
    // Two layers: 0.25 and 1 of its three values are the ends.
    let adapter = "{path: style, weight: [0.25, 9, 1]}";
    let line = "--module-weight layers.0=0.25";
    same(&scene, &format!("adapters: [{adapter}]"), &format!("combine style {line}"));
    let recipe = format!("base: base\nadapters: [{adapter}]");
    same(&scene, &recipe, &format!("merge base style {line}"));
    // The base's layers count, though the adapter has only the first.
    let adapter = "{path: style, weight: [1, 0], exclude: layers.1}";
    let recipe = format!("base: base\nadapters: [{adapter}]");
    same(&scene, &recipe, "merge base style --include layers.0");
}

#[test]
fn rules_for_fine_tuned_checkpoints() {
    let scene = llama();
    scene.runs("merge base style -o tuned --dtype f32");
    let adapter = "{path: tuned, weight: [{filter: mlp, value: 0.5}, {value: 1}]}";
    let recipe = format!("base: base\ndtype: f32\nadapters: [{adapter}]");
    same(&scene, &recipe, "merge base tuned --dtype f32 --module-weight mlp=0.5");
    let recipe = format!("base: base\nmethod: ties\nadapters: [{adapter}, task]");
    let line = "merge base tuned task --method ties --include mlp";
    let [recipe, line] = both(&scene, &recipe, &line.replace("tuned", "tuned:0.5"));
    for (name, read) in line.iter().filter(|(name, _)| name.contains("mlp")) {
        assert!(recipe.get(name) == Some(read), "{name}");
    }
}

#[test]
fn an_output_says_where_it_comes_from() {
    let scene = llama();
    let text =
        "# two styles\nadapters:\n- {path: style, weight: 0.7}\n- task\nrank: 4\noutput: both\n";
    scene.write("blend.yaml", text);
    scene.runs("run blend.yaml");
    let said = metadata(&scene.path("both/adapter_model.safetensors"));
    assert_eq!(said.get("lora_tool.recipe").map(String::as_str), Some(text));
    let made: Value = serde_json::from_str(&said["lora_tool"]).expect("JSON");
    assert_eq!(made["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(made["inputs"][0]["name"], "style");
    let style = scene.path("style/adapter_model.safetensors");
    let files = &made["inputs"][0]["files"];
    assert_eq!(files["adapter_model.safetensors"], sha256(&style));
    assert_eq!(files["adapter_config.json"], sha256(&scene.path("style/adapter_config.json")));
    let shown = scene.runs("inspect both");
    assert!(shown.contains("lora_tool.recipe: # two styles"), "{shown}");
    // What is made of it has another origin.
    scene.runs("resize both -o smaller --rank 2");
    let said = metadata(&scene.path("smaller/adapter_model.safetensors"));
    assert!(!said.contains_key("lora_tool.recipe"));

    scene.write("merge.yaml", format!("base: base\n{text}").replace("rank: 4\n", ""));
    scene.runs("run merge.yaml -o merged");
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        let said = metadata(&scene.path(&format!("merged/{shard}")));
        assert_eq!(said["format"], "pt");
        assert!(said["lora_tool.recipe"].starts_with("base: base\n# two styles\n"));
        let made: Value = serde_json::from_str(&said["lora_tool"]).expect("JSON");
        assert_eq!(made["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(made["method"], "linear");
        assert_eq!(made["base"][shard], sha256(&scene.path(&format!("base/{shard}"))));
        let files = &made["inputs"][0]["files"];
        assert_eq!(files["adapter_model.safetensors"], sha256(&style));
        let config = scene.path("style/adapter_config.json");
        assert_eq!(files["adapter_config.json"], sha256(&config));
        assert_eq!(made["inputs"].as_array().map(Vec::len), Some(2));
    }
    scene.runs("verify merged --base base --adapter style task -w 0.7 1");

    // What is made of it has another origin, and this one as its base's; undone, it is what it was.
    let said = metadata(&scene.path("merged/model-00001-of-00002.safetensors"));
    let recipe = said["lora_tool.recipe"].clone();
    scene.runs("merge merged style -o again --receipt kept");
    let again = metadata(&scene.path("again/model-00001-of-00002.safetensors"));
    assert_eq!(again["lora_tool.base.recipe"], recipe);
    assert_eq!(again["lora_tool.base"], said["lora_tool"]);
    assert!(!again.contains_key("lora_tool.recipe"));
    let made: Value = serde_json::from_str(&again["lora_tool"]).expect("JSON");
    let shard = "model-00001-of-00002.safetensors";
    let size = std::fs::metadata(scene.path(&format!("merged/{shard}"))).expect("a file").len();
    assert_eq!(made["base"][shard]["bytes"], size);
    assert_eq!(made["inputs"][0]["files"]["adapter_model.safetensors"], sha256(&style));
    scene.runs("verify again --base merged --adapter style");
    scene.runs("undo again --receipt kept -o undone");
    assert!(tree(&scene.path("undone")) == tree(&scene.path("merged")));
    // By a recipe, it has one of its own; the bases before are still told apart.
    scene.write("more.yaml", "base: again\nadapters: [task]\n");
    scene.runs("run more.yaml -o more");
    let more = metadata(&scene.path("more/model-00001-of-00002.safetensors"));
    assert_eq!(more["lora_tool.recipe"], "base: again\nadapters: [task]\n");
    assert_eq!(more["lora_tool.base.base.recipe"], recipe);
}

#[test]
fn the_same_recipe_gives_the_same_bytes() {
    let scene = llama();
    let adapters =
        "adapters: [{path: style, weight: [0, 1]}, task]\nmethod: dare-ties\noutput: out\n";
    for base in ["base: base\n", "rank: 4\n"] {
        scene.write("recipe.yaml", format!("{base}{adapters}"));
        scene.runs("run recipe.yaml");
        let first = tree(&scene.path("out"));
        scene.runs("--threads 1 run recipe.yaml --force");
        assert!(first == tree(&scene.path("out")), "{base}");
        scene.runs("run recipe.yaml -o elsewhere");
        assert!(first == tree(&scene.path("elsewhere")), "{base}");
        for old in ["out", "elsewhere"] {
            std::fs::remove_dir_all(scene.path(old)).expect("removed");
        }
    }
}

/// As in a folder that is moved as a whole.
#[test]
fn paths_are_relative_to_the_recipe() {
    let scene = llama();
    scene.directory("recipes");
    scene.write("recipes/blend.yaml", "adapters: [../style, ../task]\noutput: blend\n");
    scene.runs("run recipes/blend.yaml");
    assert!(scene.path("recipes/blend/adapter_model.safetensors").is_file());
    // The command line's own is relative to where it is typed.
    scene.runs("run recipes/blend.yaml -o blend");
    assert!(scene.path("blend/adapter_model.safetensors").is_file());
}

#[test]
fn a_merge_keeps_its_promises() {
    let scene = llama();
    let adapters = "adapters: [style]\nbase: base\nreceipt: kept\nverify: true\noutput: merged\n";
    scene.write("recipe.yaml", adapters);
    let said = scene.runs("run recipe.yaml --json");
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(report["command"], "run");
    assert_eq!(report["verification"]["ok"], true);
    scene.runs("undo merged --receipt kept -o again");
    assert!(tree(&scene.path("again")) == tree(&scene.path("base")));
}

#[test]
fn a_dry_run_writes_nothing() {
    let scene = llama();
    scene.write(
        "recipe.yaml",
        "base: base\nadapters: [{path: style, weight: [0, 1]}]\noutput: merged\n",
    );
    let before = tree(&scene.path(""));
    let said = scene.runs("run recipe.yaml --dry-run");
    assert!(said.starts_with("would merge style into merged"), "{said}");
    assert!(said.contains("style  weights by module: 7/14 modules applied, 7 left out"), "{said}");
    let said = scene.runs("run recipe.yaml -n --json -o elsewhere");
    let plan: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(plan["output"], "elsewhere");
    assert!(before == tree(&scene.path("")));
}

#[test]
fn yamls_own_ways_of_saying_the_same() {
    let scene = llama();
    let line = "combine style:0.5 task:0.5 --rank 4";
    for recipe in [
        "{\"adapters\": [{\"path\": \"style\", \"weight\": 0.5}, {\"path\": \"task\", \"weight\": 5e-1}], \"rank\": 4}",
        "%YAML 1.2\n---\nadapters:\n  - {path: 'style', weight: &w .5}\n  - path: >-\n      task\n    weight: *w\nrank: '4'\n...\n",
        "\u{feff}adapters:\r\n- path: style\r\n  weight: +0.5\r\n- path: task\r\n  weight: 0.50\r\nrank: 4\r\n",
    ] {
        same(&scene, recipe, line);
    }
}
