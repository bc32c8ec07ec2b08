//! Which way round a base stores each layer: decided module by module, alike for merge, verify,
//! inspect and extract, and refused where nothing tells. Held to plain f64 sums.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Bench, Peft, Random, Tensors, lora_tool, product, read};

const RANK: usize = 2;
const WIDTH: usize = 8;

/// A layer of a base: its name, outputs, inputs, whether it is stored inputs × outputs, and whether it
/// has a bias.
#[derive(Clone, Copy)]
struct Layer(&'static str, usize, usize, bool, bool);

/// An encoder of Linear layers with a decoder of GPT-2's Conv1D, as in ViT-GPT2.
const MIXED: [Layer; 9] = [
    Layer("encoder.encoder.layer.0.attention.attention.query", 8, 8, false, false),
    Layer("encoder.encoder.layer.0.attention.attention.value", 8, 8, false, false),
    Layer("encoder.encoder.layer.0.intermediate.dense", 32, 8, false, false),
    Layer("decoder.transformer.h.0.attn.c_attn", 24, 8, true, false),
    Layer("decoder.transformer.h.0.attn.c_proj", 8, 8, true, false),
    Layer("decoder.transformer.h.0.crossattention.q_attn", 8, 8, true, false),
    Layer("decoder.transformer.h.0.crossattention.c_attn", 16, 8, true, false),
    Layer("decoder.transformer.h.0.crossattention.c_proj", 8, 8, true, false),
    Layer("decoder.transformer.h.0.mlp.c_proj", 8, 32, true, false),
];

/// CLVP: Linear attention beside a Conv1D feed-forward.
const CLVP: [Layer; 4] = [
    Layer("model.decoder.layers.0.attn.q_proj", 8, 8, false, false),
    Layer("model.decoder.layers.0.attn.out_proj", 8, 8, false, true),
    Layer("model.decoder.layers.0.mlp.c_fc", 32, 8, true, true),
    Layer("model.decoder.layers.0.mlp.c_proj", 8, 32, true, true),
];

/// `GPTBigCode` with one key and value for all heads: GPT-2's names, all of them Linear layers.
const BIG_CODE: [Layer; 4] = [
    Layer("transformer.h.0.attn.c_attn", 12, 8, false, true),
    Layer("transformer.h.0.attn.c_proj", 8, 8, false, true),
    Layer("transformer.h.0.mlp.c_fc", 32, 8, false, true),
    Layer("transformer.h.0.mlp.c_proj", 8, 32, false, true),
];

/// Names of nobody's: biases tell of the layers beside them, and of no others.
const OWN_NAMES: [Layer; 4] = [
    Layer("a.blocks.0.mix", 24, 8, true, true),
    Layer("a.blocks.0.out", 8, 8, true, true),
    Layer("b.blocks.0.up", 24, 8, false, true),
    Layer("b.blocks.0.out", 8, 8, false, true),
];

struct Trial {
    bench: Bench,
    random: Random,
    layers: Vec<Layer>,
    base: PathBuf,
}

impl Trial {
    fn new(layers: &[Layer]) -> Self {
        let (bench, mut random) = (Bench::new(), Random::new(5));
        let mut base = Tensors::new();
        for Layer(name, outputs, inputs, turned, bias) in layers {
            let shape = if *turned { [*inputs, *outputs] } else { [*outputs, *inputs] };
            let values = random.values(outputs * inputs, 1.0);
            base = base.f32(&format!("{name}.weight"), &shape, &values);
            if *bias {
                base =
                    base.f32(&format!("{name}.bias"), &[*outputs], &random.values(*outputs, 1.0));
            }
        }
        let base = base.save(&bench.path("base.safetensors"));
        Self { bench, random, layers: layers.to_vec(), base }
    }

    /// Merges an adapter of some layers and holds every tensor to f64.
    fn check(&mut self, chosen: &[Layer], flag: Option<bool>, options: &str) {
        let mut adapter = Peft::new(RANK, 2.0);
        adapter.config.remove("fan_in_fan_out");
        if let Some(flag) = flag {
            adapter = adapter.field("fan_in_fan_out", flag);
        }
        let mut deltas = Vec::new();
        for layer @ Layer(name, outputs, inputs, ..) in chosen {
            let down = self.random.values(RANK * inputs, 1.0);
            let up = self.random.values(outputs * RANK, 1.0);
            adapter = adapter.linear(name, RANK, &down, &up);
            deltas.push((layer, product(&up, &down, RANK)));
        }
        let path = self.bench.path("adapter");
        let _ = std::fs::remove_dir_all(&path);
        let adapter = adapter.save(&path);
        let merged = self.bench.merge(&self.base, &[&adapter], &format!("{options} --verify"));
        let (base, merged) = (read(&self.base), read(&merged));
        for (Layer(name, outputs, inputs, turned, _), delta) in deltas {
            let key = format!("{name}.weight");
            let (old, new) = (base[&key].values(), merged[&key].values());
            for output in 0..*outputs {
                for input in 0..*inputs {
                    let at =
                        if *turned { input * outputs + output } else { output * inputs + input };
                    let exact = old[at] + delta[output * inputs + input];
                    let close = (new[at] - exact).abs() < 1e-6;
                    assert!(close, "{name} {flag:?}: {} instead of {exact}", new[at]);
                }
            }
        }
        self.inspected(&adapter, chosen);
    }

    /// `inspect` says the same of every layer.
    fn inspected(&self, adapter: &Path, chosen: &[Layer]) {
        let mut command = lora_tool();
        command.arg("inspect").arg(adapter).arg("--against").arg(&self.base).arg("--json");
        let done = command.output().expect("it runs");
        let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        for Layer(name, _, _, turned, _) in chosen {
            let modules = report["items"][0]["modules"].as_array().expect("modules");
            let module = modules.iter().find(|module| module["name"] == *name).expect("listed");
            assert_eq!(module["transposed"] == true, *turned, "{name}: {report}");
        }
    }
}

#[test]
fn every_module_lies_as_its_own_layer_does() {
    for layers in [&MIXED[..], &CLVP, &BIG_CODE, &OWN_NAMES] {
        let mut trial = Trial::new(layers);
        for flag in [None, Some(false), Some(true)] {
            trial.check(layers, flag, "");
        }
        for layer in layers {
            trial.check(&[*layer], Some(layer.3), "");
        }
    }
}

#[test]
fn an_encoder_alone_is_not_turned_by_its_decoder() {
    let mut trial = Trial::new(&MIXED);
    trial.check(&MIXED[..2], Some(false), "");
    trial.check(&MIXED[..2], None, "");
    // The decoder's layers account for the flag.
    trial.check(&[MIXED[0], MIXED[4]], Some(true), "");
}

#[test]
fn what_is_extracted_merges_to_where_it_came_from() {
    for layers in [&MIXED[..], &CLVP, &BIG_CODE, &OWN_NAMES] {
        let trial = Trial::new(layers);
        let (mut tuned, mut random) = (Tensors::new(), Random::new(77));
        for (name, tensor) in read(&trial.base) {
            let columns = tensor.shape.last().copied().unwrap_or(1);
            let (up, down) =
                (random.values(tensor.values().len() / columns, 1.0), random.values(columns, 1.0));
            let delta = match tensor.shape.len() {
                2 => product(&up, &down, 1),
                _ => vec![0.0; columns],
            };
            let values: Vec<f32> =
                tensor.values().iter().zip(delta).map(|(old, by)| (old + by) as f32).collect();
            tuned = tuned.f32(&name, &tensor.shape, &values);
        }
        let tuned = tuned.save(&trial.bench.path("tuned.safetensors"));
        for (at, to) in ["peft", "kohya"].iter().enumerate() {
            let out = trial.bench.path(&format!("extracted-{at}.safetensors"));
            let out = if *to == "peft" { out.with_extension("") } else { out };
            let mut command = lora_tool();
            command
                .arg("extract")
                .args([&trial.base, &tuned])
                .args(["--rank", "1", "--to", to, "-o"]);
            command.arg(&out).assert().success();
            let merged = read(&trial.bench.merge(&trial.base, &[&out], "--verify"));
            for (name, tensor) in read(&tuned) {
                let pairs = merged[&name].values().into_iter().zip(tensor.values());
                let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(off < 1e-5, "{name} of {to}: {off}");
            }
            // What was extracted is of the layer's outputs and inputs, however they are stored.
            for Layer(layer, outputs, inputs, ..) in &trial.layers {
                let factors = read(&out);
                let ending = if *to == "peft" { ".lora_B.weight" } else { ".lora_up.weight" };
                let flat =
                    if *to == "peft" { (*layer).to_owned() } else { layer.replace('.', "_") };
                let up =
                    factors.iter().find(|(name, _)| name.ends_with(&format!("{flat}{ending}")));
                let (_, up) = up.unwrap_or_else(|| panic!("{layer} in {to}: {:?}", factors.keys()));
                assert_eq!(up.shape, [*outputs, 1], "{layer}: {outputs} × {inputs}");
            }
        }
    }
}

/// A square of GPT-2's names with nothing beside it, and one of other names.
const LONELY: [Layer; 2] = [
    Layer("h.0.attn.c_proj", WIDTH, WIDTH, true, true),
    Layer("model.layers.0.proj", WIDTH, WIDTH, true, true),
];

#[test]
fn squares_that_nothing_tells_of_are_refused_with_the_flag_that_settles_them() {
    let values = [0.5; RANK * WIDTH];
    for (Layer(name, ..), flag) in [(LONELY[0], None), (LONELY[1], Some(true))] {
        let trial = Trial::new(&LONELY);
        let mut adapter = Peft::new(RANK, 2.0).linear(name, RANK, &values, &values);
        adapter.config.remove("fan_in_fan_out");
        if let Some(flag) = flag {
            adapter = adapter.field("fan_in_fan_out", flag);
        }
        let adapter = adapter.save(&trial.bench.path("adapter"));
        let said = trial.bench.refuse(&trial.base, &[&adapter], "");
        let escaped = name.replace('.', "\\.");
        assert!(said.contains("stored outputs × inputs or inputs × outputs"), "{said}");
        assert!(said.contains(&format!("--orientation '{escaped}\\.weight=out-in'")), "{said}");
    }
    // Either answer is carried out.
    for (way, turned) in [("in-out", true), ("out-in", false)] {
        let layers = LONELY.map(|Layer(name, a, b, _, bias)| Layer(name, a, b, turned, bias));
        let mut trial = Trial::new(&layers);
        let options = format!("--orientation proj.weight={way}");
        for (layer, flag) in [(layers[0], None), (layers[1], Some(true))] {
            let adapter = |trial: &mut Trial| {
                let chosen = [layer];
                let mut peft = Peft::new(RANK, 2.0);
                peft.config.remove("fan_in_fan_out");
                let down = trial.random.values(RANK * WIDTH, 1.0);
                let up = trial.random.values(RANK * WIDTH, 1.0);
                let peft = match flag {
                    Some(flag) => peft.field("fan_in_fan_out", flag),
                    None => peft,
                };
                let path = trial.bench.path(&format!("adapter-{way}-{}", chosen[0].0));
                (peft.linear(layer.0, RANK, &down, &up).save(&path), product(&up, &down, RANK))
            };
            let (path, delta) = adapter(&mut trial);
            let merged = read(&trial.bench.merge(&trial.base, &[&path], &options));
            let key = format!("{}.weight", layer.0);
            let (old, new) = (read(&trial.base)[&key].values(), merged[&key].values());
            for at in 0..WIDTH * WIDTH {
                let (row, column) = (at / WIDTH, at % WIDTH);
                let from = if turned { column * WIDTH + row } else { at };
                assert!((new[at] - old[at] - delta[from]).abs() < 1e-6, "{key} {way}");
            }
        }
    }
}

#[test]
fn a_rule_of_orientation_must_match_and_be_one() {
    let mut trial = Trial::new(&MIXED);
    trial.check(&MIXED[..1], None, "");
    let adapter = trial.bench.path("adapter");
    let refuse = |options: &str| trial.bench.refuse(&trial.base, &[&adapter], options);
    assert!(
        refuse("--orientation nosuch=in-out").contains("no module is left for the rule `nosuch`")
    );
    assert!(refuse("--orientation query=up").contains("`up` is neither in-out nor out-in"));
    let extract = |rule: &str| {
        let mut command = lora_tool();
        command.arg("extract").args([&trial.base, &trial.base]).args(["--rank", "1", "-o", "x"]);
        let done = command.args(["--orientation", rule]).output().expect("it runs");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    assert!(extract("nosuch=in-out").contains("no module is left for the rule `nosuch`"));
}

#[test]
fn a_lonely_square_is_extracted_only_when_it_is_told() {
    let trial = Trial::new(&LONELY[..1]);
    let mut random = Random::new(3);
    let mut tuned = Tensors::new();
    for (name, tensor) in read(&trial.base) {
        let values = random.values(tensor.values().len(), 1.0);
        tuned = tuned.f32(&name, &tensor.shape, &values);
    }
    let tuned = tuned.save(&trial.bench.path("tuned.safetensors"));
    let run = |out: &Path, rule: Option<&str>| {
        let mut command = lora_tool();
        command.arg("extract").args([&trial.base, &tuned]).args(["--rank", "8", "-o"]).arg(out);
        command.args(rule.iter().flat_map(|rule| ["--orientation", *rule]));
        command.output().expect("it runs")
    };
    let out = trial.bench.path("out");
    let refused = run(&out, None);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("--orientation 'h\\.0\\.attn\\.c_proj\\.weight=out-in'"), "{said}");
    for (way, turned) in [("in-out", true), ("out-in", false)] {
        let out = trial.bench.path(way);
        let done = run(&out, Some(&format!("c_proj={way}")));
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        let config = std::fs::read(out.join("adapter_config.json")).expect("a config");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!(config["fan_in_fan_out"], turned);
        // PEFT's flag settles what it left open.
        let merged = read(&trial.bench.merge(&trial.base, &[&out], ""));
        let key = "h.0.attn.c_proj.weight";
        let pairs = merged[key].values().into_iter().zip(read(&tuned)[key].values());
        assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) < 1e-5, "{way}");
    }
}

/// Rounding is blamed for what it did, not for what a method leaves alone or an adapter does not touch.
#[test]
fn only_elements_that_should_have_changed_count_as_lost() {
    let bench = Bench::new();
    let base =
        Tensors::new().f32("m.weight", &[20, 10], &[1.0; 200]).save(&bench.path("b.safetensors"));
    let mut random = Random::new(8);
    // Rows 10.. get nothing; a fifth of the others too little for a float at 1.
    let up: Vec<f32> = (0..20).map(|row| if row < 10 { 1.0 } else { 0.0 }).collect();
    let down: Vec<f32> =
        (0..10).map(|at| if at < 2 { 1e-9 } else { random.value(0.5).abs() + 0.1 }).collect();
    let adapter = Peft::new(1, 1.0).linear("m", 1, &down, &up).save(&bench.path("a"));
    let effective = |options: &str| {
        let (_, done) = bench.run(&base, &[&adapter], &format!("{options} --json"));
        let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        let of = |key: &str| report["effective"][key].as_f64().expect("a number");
        ((of("unchanged") * 1e6).round() / 1e6, (of("untouched") * 1e6).round() / 1e6)
    };
    assert_eq!(effective(""), (0.2, 0.5));
    // A tenth of all elements: the largest column that is there, and its twin row by row.
    assert_eq!(effective("--method magnitude-prune --density 0.1"), (0.0, 0.9));
    let (_, done) = bench.run(&base, &[&adapter], "--method magnitude-prune --density 0.1");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let words = "nothing lost to rounding; nothing was added to 90.0 % of elements";
    assert!(said.contains(words), "{said}");
}
