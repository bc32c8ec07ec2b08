//! Every option of `merge` and `combine` can be said in a recipe, and means the same: the same bytes of output. Each
//! case is a line that does something else, or is refused, without the option.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use lora_tool::format::{Access, Checkpoint, Dtype};
use lora_tool::ops::shared::options::{Recipe, options_of};
use serde_json::{Value, json};

use crate::common::refusal::{MODULE, Scene, TARGET, adapter, tree};
use crate::common::{Peft, Tensors, fixture, lora_tool, read};

/// Options that no output shows: the report does, or another file.
const NOT_IN_THE_OUTPUT: [&str; 6] =
    ["verify", "receipt", "resume", "residual", "residual_rank", "no_provenance"];

/// A verb's option, the line without it, what the line says more, the inputs of a recipe and what it says more.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str);

const MERGE: &[Case] = &[
    ("weights", "base style", "-w 0.5", "adapters: [{path: style, weight: 0.5}]", ""),
    ("method", "base style task", "--method ties", "adapters: [style, task]", "method: ties"),
    (
        "compat",
        "base style task",
        "--compat mergekit",
        "adapters: [style, task]",
        "compat: mergekit",
    ),
    ("dtype", "base style", "--dtype f32", "adapters: [style]", "dtype: f32"),
    (
        "module_weight",
        "base style",
        "--module-weight mlp=0.5 --module-weight up_proj=-1",
        "adapters: [style]",
        "module_weight: {mlp: 0.5, up_proj: -1}",
    ),
    ("include", "base style", "--include mlp", "adapters: [style]", "include: mlp"),
    ("exclude", "base style", "--exclude mlp", "adapters: [style]", "exclude: mlp"),
    (
        "allow_unmatched",
        "base unmatched",
        "--allow-unmatched",
        "adapters: [unmatched]",
        "allow_unmatched: true",
    ),
    ("card", "base style", "--card", "adapters: [style]", "card: true"),
    ("no_provenance", "base style", "--no-provenance", "adapters: [style]", "no_provenance: true"),
    ("add_new", "base whole", "--add-new", "adapters: [whole]", "add_new: true"),
    ("keep_tied", "tied embedding", "--keep-tied", "adapters: [embedding]", "keep_tied: true"),
    (
        "max_shard_size",
        "base style",
        "--max-shard-size 50kB",
        "adapters: [style]",
        "max_shard_size: 50kB",
    ),
    (
        "orientation",
        "base style",
        "--orientation o_proj=in-out",
        "adapters: [style]",
        "orientation: o_proj=in-out",
    ),
    (
        "quantized",
        "fp8.safetensors small",
        "--quantized refuse",
        "adapters: [small]",
        "quantized: refuse",
    ),
    (
        "touched",
        "fp8.safetensors small --quantized hybrid",
        "--touched int8",
        "adapters: [small]\nquantized: hybrid",
        "touched: int8",
    ),
    (
        "quantize_like",
        "base16.safetensors small",
        "--quantize-like fp8.safetensors --min-survival 0",
        "adapters: [small]",
        "quantize_like: fp8.safetensors\nmin_survival: 0",
    ),
    ("as_trained", "base style", "--as-trained nf4", "adapters: [style]", "as_trained: nf4"),
    (
        "scales",
        "fp8.safetensors small",
        "--quantized requantize --min-survival 0 --scales reuse",
        "adapters: [small]",
        "quantized: requantize\nmin_survival: 0\nscales: reuse",
    ),
    (
        "rounding",
        "fp8.safetensors small",
        "--quantized requantize --min-survival 0 --rounding stochastic",
        "adapters: [small]",
        "quantized: requantize\nmin_survival: 0\nrounding: stochastic",
    ),
    (
        "rounding_seed",
        "fp8.safetensors small",
        "--quantized requantize --min-survival 0 --rounding stochastic --rounding-seed 5",
        "adapters: [small]",
        "quantized: requantize\nmin_survival: 0\nrounding: stochastic\nrounding_seed: 5",
    ),
    (
        "min_survival",
        "fp8.safetensors small",
        "--quantized requantize --min-survival 0",
        "adapters: [small]",
        "quantized: requantize\nmin_survival: 0",
    ),
    (
        "residual",
        "fp8.safetensors small --quantized requantize --min-survival 0",
        "--residual line.lost",
        "adapters: [small]\nquantized: requantize\nmin_survival: 0",
        "residual: recipe.lost",
    ),
    (
        "residual_rank",
        "fp8.safetensors small --quantized requantize --min-survival 0",
        "--residual line.lost --residual-rank 2",
        "adapters: [small]\nquantized: requantize\nmin_survival: 0",
        "residual: recipe.lost\nresidual_rank: 2",
    ),
    ("types", "blocks.gguf blocks", "--types f32", "adapters: [blocks]", "types: f32"),
    ("reference", "llama.gguf style", "--reference base", "adapters: [style]", "reference: base"),
    ("verify", "base style", "--verify", "adapters: [style]", "verify: true"),
    ("resume", "base style", "--resume", "adapters: [style]", "resume: true"),
    ("receipt", "base style", "--receipt line.kept", "adapters: [style]", "receipt: recipe.kept"),
];

const COMBINE: &[Case] = &[
    (
        "weights",
        "style task",
        "-w 0.5 2",
        "adapters: [{path: style, weight: 0.5}, {path: task, weight: 2}]",
        "",
    ),
    ("method", "style task", "--method cat", "adapters: [style, task]", "method: cat"),
    (
        "compat",
        "style task --method ties --density 0.5 --rank 4",
        "--compat peft",
        "adapters: [style, task]\nmethod: ties\nparameters: {density: 0.5}\nrank: 4",
        "compat: peft",
    ),
    (
        "space",
        "style task --method ties --rank 4",
        "--space core",
        "adapters: [style, task]\nmethod: ties\nrank: 4",
        "space: core",
    ),
    (
        "module_weight",
        "style task",
        "--module-weight mlp=0.5 --module-weight up_proj=-1",
        "adapters: [style, task]",
        "module_weight: {mlp: 0.5, up_proj: -1}",
    ),
    ("include", "style task", "--include mlp", "adapters: [style, task]", "include: mlp"),
    ("exclude", "style task", "--exclude mlp", "adapters: [style, task]", "exclude: mlp"),
    ("rank", "style task", "--rank 3", "adapters: [style, task]", "rank: 3"),
    ("max_rank", "style task", "--max-rank 5", "adapters: [style, task]", "max_rank: 5"),
    ("uniform", "style task", "--uniform", "adapters: [style, task]", "uniform: true"),
    ("dtype", "style task", "--dtype bf16", "adapters: [style, task]", "dtype: bf16"),
    ("to", "style task", "--to mlx", "adapters: [style, task]", "to: mlx"),
    (
        "reference",
        "style task --to gguf",
        "--reference base",
        "adapters: [style, task]\nto: gguf",
        "reference: base",
    ),
    (
        "conv_rank",
        "conv.safetensors",
        "--conv-rank 1",
        "adapters: [conv.safetensors]",
        "conv_rank: 1",
    ),
    (
        "lbw",
        "conv.safetensors",
        "--lbw 1,0.5,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
        "adapters: [{path: conv.safetensors, lbw: [1,0.5,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}]",
        "",
    ),
    ("card", "style", "--card", "adapters: [style]", "card: true"),
    ("title", "kohya.safetensors", "--title ink", "adapters: [kohya.safetensors]", "title: ink"),
    (
        "trigger",
        "kohya.safetensors",
        "--trigger ink",
        "adapters: [kohya.safetensors]",
        "trigger: ink",
    ),
    (
        "on_conflict",
        "whole other",
        "--on-conflict average",
        "adapters: [whole, other]",
        "on_conflict: average",
    ),
    (
        "allow_disjoint",
        "style stranger",
        "--allow-disjoint",
        "adapters: [style, stranger]",
        "allow_disjoint: true",
    ),
];

/// What says how adapters are read, alike in both verbs: the adapter, and what a line and a recipe say.
const OPEN: &[(&str, &str, &str, &str)] = &[
    ("alpha", "bare.safetensors", "--alpha 4", "alpha: 4"),
    ("scale", "bare.safetensors", "--scale 0.5", "scale: 0.5"),
    ("rslora", "bare.safetensors", "--alpha 4 --rslora", "alpha: 4\nrslora: true"),
    ("convention", "style", "--convention kohya", "convention: kohya"),
    ("ignore_field", "odd", "--ignore-field brand_new", "ignore_field: brand_new"),
    ("residual_base", "pissa", "--residual-base", "residual_base: true"),
];

fn scene() -> Scene {
    let scene = Scene::empty();
    for (name, bytes) in tree(&fixture("llama")) {
        if fixture("llama").join(&name).is_file() {
            scene.write(&name.to_string_lossy(), bytes);
        }
    }
    let weights = std::fs::read(fixture("llama/style/adapter_model.safetensors")).expect("style");
    let config = std::fs::read(fixture("llama/style/adapter_config.json")).expect("its config");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    let with = |folder: &str, field: &str, value: Value| {
        let mut config = config.clone();
        config[field] = value;
        scene.write(&format!("{folder}/adapter_model.safetensors"), &weights);
        scene.write(&format!("{folder}/adapter_config.json"), config.to_string());
    };
    // Keys of PEFT without the config that says their scale.
    scene.write("bare.safetensors", &weights);
    with("odd", "brand_new", json!(true));
    with("pissa", "init_lora_weights", json!("pissa"));
    let q = |peft: Peft| peft.linear("model.layers.0.self_attn.q_proj", 1, &[0.5; 64], &[0.25; 64]);
    q(Peft::new(1, 1.0))
        .linear("model.layers.7.self_attn.q_proj", 1, &[1.0; 64], &[1.0; 64])
        .save(&scene.path("unmatched"));
    let whole = |value: f32| q(Peft::new(1, 1.0)).tensor("score.weight", &[2, 64], &[value; 128]);
    whole(0.5).save(&scene.path("whole"));
    whole(1.5).save(&scene.path("other"));
    Peft::new(1, 1.0)
        .linear("encoder.layer.0.attention.self.query", 1, &[1.0; 8], &[1.0; 8])
        .field("base_model_name_or_path", "google/bert")
        .save(&scene.path("stranger"));
    // A base whose one weight is 8-bit floats with a scale.
    Tensors::new()
        .raw(TARGET, Dtype::F8_E4M3, &[4, 3], &[56; 12])
        .f32(&format!("{MODULE}.weight_scale"), &[1], &[0.5])
        .save(&scene.path("fp8.safetensors"));
    Tensors::new().f32(TARGET, &[4, 3], &[0.4; 12]).save(&scene.path("base16.safetensors"));
    let blocks = fixture("quant/gguf_llama_q8q4/base/model.gguf");
    std::fs::copy(blocks, scene.path("blocks.gguf")).expect("copied");
    std::fs::copy(fixture("llama/base.gguf"), scene.path("llama.gguf")).expect("copied");
    let (down, up) = (ramp(128), ramp(96));
    Peft::new(1, 1.0)
        .linear("model.layers.0.self_attn.q_proj", 1, &down, &up)
        .save(&scene.path("blocks"));
    adapter(1.0).save(&scene.path("small"));
    // An embedding that is the head too, and an adapter of the embedding alone.
    Tensors::new()
        .f32("model.embed_tokens.weight", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .save(&scene.directory("tied").join("model.safetensors"));
    scene.write("tied/config.json", json!({"tie_word_embeddings": true}).to_string());
    Peft::new(1, 1.0)
        .tensor("model.embed_tokens.lora_embedding_A", &[1, 3], &[1.0, 2.0, 3.0])
        .tensor("model.embed_tokens.lora_embedding_B", &[2, 1], &[1.0, -1.0])
        .save(&scene.path("embedding"));
    // kohya's: a convolution and a linear layer of a U-Net's first block with attention.
    let key = |module: &str, part: &str| format!("lora_unet_down_blocks_0_{module}.{part}");
    let [conv, linear] = ["resnets_0_conv1", "attentions_0_proj_in"];
    Tensors::new()
        .f32(&key(conv, "lora_down.weight"), &[2, 2, 3, 3], &ramp(36))
        .f32(&key(conv, "lora_up.weight"), &[4, 2, 1, 1], &ramp(8))
        .f32(&key(conv, "alpha"), &[], &[2.0])
        .f32(&key(linear, "lora_down.weight"), &[2, 4], &ramp(8))
        .f32(&key(linear, "lora_up.weight"), &[4, 2], &ramp(8))
        .f32(&key(linear, "alpha"), &[], &[2.0])
        .save(&scene.path("conv.safetensors"));
    scene
}

fn ramp(count: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * 7) % 11) as f32 / 8.0 - 0.5).collect()
}

/// Everything that a line wrote, or what it was refused with: tensors by name and bytes, other files whole, metadata
/// but for what it says of the recipe.
fn written(scene: &Scene, line: &str, out: &str) -> Result<BTreeMap<String, String>, String> {
    let mut command = lora_tool();
    command.current_dir(scene.path("")).args(line.split(' ')).args(["--json", "-o", out]);
    let done = command.output().expect("it runs");
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    let path = scene.path(out);
    let files: Vec<(String, PathBuf)> = match path.is_dir() {
        true => {
            let files = tree(&path).into_keys();
            files.map(|name| (name.to_string_lossy().into_owned(), path.join(name))).collect()
        }
        false => vec![(String::new(), path)],
    };
    let mut found = BTreeMap::new();
    for (name, path) in files {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if !["safetensors", "gguf"].contains(&ending) {
            let bytes = std::fs::read(&path).expect("a readable file");
            let text = String::from_utf8_lossy(&bytes).into_owned();
            // A card is called as the output is, which is not the same for both.
            let lines = text.lines().filter(|line| name != "README.md" || !line.starts_with("# "));
            found.insert(name.clone(), lines.collect::<Vec<_>>().join("\n"));
            continue;
        }
        let file = Checkpoint::open(&path, Access::Map).expect("a checkpoint");
        let metadata = file.shards.first().and_then(|shard| shard.header.metadata.clone());
        for (key, value) in metadata.into_iter().flatten() {
            if !key.starts_with("lora_tool") {
                found.insert(format!("{name} {key}"), value);
            }
        }
        for shard in file.shards.iter().filter(|_| ending == "gguf") {
            for spec in &shard.header.tensors {
                let view = file.tensor(&spec.name).expect("a tensor");
                let bytes = view.all(&mut Vec::new()).expect("read").to_vec();
                found.insert(spec.name.clone(), format!("{:?} {bytes:?}", spec.shape));
            }
        }
        for (tensor, value) in if ending == "gguf" { BTreeMap::new() } else { read(&path) } {
            found.insert(format!("{name} {tensor}"), format!("{value:?}"));
        }
    }
    Ok(found)
}

/// A line and a recipe that should write the same, and the line without the option, which should not.
fn compare(option: &str, without: &str, with: &str, recipe: &str) {
    let scene = scene();
    scene.write("recipe.yaml", recipe);
    // kohya's convention is one file's, llama.cpp's a file of its own.
    let kohya =
        without.starts_with("combine") && ["conv.", "kohya."].iter().any(|at| without.contains(at));
    let ending = match (without.contains("gguf"), kohya) {
        (true, _) => ".gguf",
        (false, true) => ".safetensors",
        (false, false) => "",
    };
    let line = format!("{without} {with}");
    let by_line = written(&scene, &line, &format!("line{ending}"));
    let by_recipe = written(&scene, "run recipe.yaml", &format!("recipe{ending}"));
    if let (Err(by_line), Err(by_recipe)) = (&by_line, &by_recipe) {
        // An option that is heeded too where it makes the line impossible.
        let said = by_recipe.replace("error: recipe.yaml: ", "error: ");
        assert_eq!(*by_line, said.replace("error: recipe: ", "error: line: "));
        assert!(written(&scene, without, "without").is_ok(), "{line}\n{by_line}");
        return;
    }
    let by_line = by_line.unwrap_or_else(|said| panic!("{line}\n{said}"));
    let by_recipe = by_recipe.unwrap_or_else(|said| panic!("{recipe}\n{said}"));
    for (name, value) in &by_line {
        assert_eq!(by_recipe.get(name), Some(value), "{line}\n{recipe}\n{name}");
    }
    assert_eq!(by_line.len(), by_recipe.len(), "{line}\n{recipe}");
    let without = written(&scene, without, &format!("without{ending}"));
    let changes = without != Ok(by_line);
    assert_eq!(changes, !NOT_IN_THE_OUTPUT.contains(&option), "{line}: what the option changes");
    if option == "receipt" {
        for file in ["line.kept", "recipe.kept"] {
            assert!(scene.path(file).is_file(), "{file}");
        }
    }
}

#[test]
fn a_recipe_says_every_option_of_merge() {
    for (option, line, with, inputs, says) in MERGE {
        let base = line.split(' ').next().unwrap_or_default();
        let recipe = format!("base: {base}\n{inputs}\n{says}\n");
        compare(option, &format!("merge {line}"), with, &recipe);
    }
}

#[test]
fn a_recipe_says_every_option_of_combine() {
    for (option, line, with, inputs, says) in COMBINE {
        compare(option, &format!("combine {line}"), with, &format!("{inputs}\n{says}\n"));
    }
}

#[test]
fn a_recipe_says_how_adapters_are_read() {
    for (option, adapter, with, says) in OPEN {
        let alpha = if *option == "rslora" { " --alpha 4" } else { "" };
        let with = with.trim_start_matches("--alpha 4 ");
        let recipe = format!("adapters: [{adapter}]\n{says}\n");
        compare(option, &format!("combine {adapter}{alpha}"), with, &recipe);
        let recipe = format!("base: base\n{recipe}");
        compare(option, &format!("merge base {adapter}{alpha}"), with, &recipe);
    }
}

/// A new option has a case here, or is one of `run` itself.
#[test]
fn no_option_is_left_out() {
    let help = lora_tool().args(["run", "--help"]).output().expect("it runs");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    for (verb, cases) in [("merge", MERGE), ("combine", COMBINE)] {
        let tried: BTreeSet<&str> = cases
            .iter()
            .map(|case| case.0)
            .chain(OPEN.iter().map(|case| case.0))
            .chain(["base", "adapters", "output"])
            .collect();
        for option in options_of(verb) {
            match option.recipe {
                Recipe::Key | Recipe::Adapter(_) => {
                    assert!(tried.contains(option.name), "{verb} --{} in a recipe", option.long());
                }
                Recipe::Run => {
                    let flag = format!("--{}", option.long());
                    assert!(help.contains(&flag), "run {flag}");
                }
                Recipe::None => panic!("{verb} --{} is said nowhere", option.long()),
            }
        }
    }
}

#[test]
fn factors_by_module_are_numbers_by_expression() {
    let scene = scene();
    for (says, error) in [
        ("[mlp]", "expected numbers by regular expression"),
        ("{mlp: high}", "expected a number"),
        ("{mlp: 1, mlp: 2}", "given twice"),
        ("{'(': 1}", "is no regular expression"),
    ] {
        scene.write("r.yaml", format!("adapters: [style, task]\nmodule_weight: {says}\n"));
        scene.refuses("run r.yaml -o out", &["r.yaml:2:", error], "");
    }
    scene.write("r.yaml", "adapters: [style, task]\nmodule_weight: {mlq: 0.5}\n");
    scene.refuses("run r.yaml -o out", &["r.yaml:2:17", "`mlq`"], "--modules");
    scene.write("r.yaml", "adapters: [style, task]\n");
    scene.refuses("run r.yaml -o out --resume", &["--resume continues a merge"], "");
}
