//! Adapters of whole parameters (PEFT's `target_parameters`): their layouts, what is refused, and what
//! the other verbs make of them. PEFT's own merges are among the golden files.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::Path;

use crate::common::{Bench, Peft, Random, Tensors, lora_tool, read};
use serde_json::{Value, json};

const EXPERTS: usize = 3;
const INNER: usize = 4;
const HIDDEN: usize = 6;
const RANK: usize = 2;
const AT: &str = "model.layers.0.mlp.experts";

/// One stack's factors as PEFT stores them: A is E·r × `across`, B is `along` × r·E.
struct Stored {
    a: Vec<f32>,
    b: Vec<f32>,
    across: usize,
    along: usize,
}

impl Stored {
    fn new(seed: u64, across: usize, along: usize) -> Self {
        let mut random = Random::new(seed);
        let depth = EXPERTS * RANK;
        Self {
            a: random.values(depth * across, 1.0),
            b: random.values(along * depth, 1.0),
            across,
            along,
        }
    }

    fn put(&self, adapter: Peft, place: &str) -> Peft {
        let depth = EXPERTS * RANK;
        adapter.tensor(&format!("{place}.lora_A.weight"), &[depth, self.across], &self.a).tensor(
            &format!("{place}.lora_B.weight"),
            &[self.along, depth],
            &self.b,
        )
    }

    /// B_e · A_e at (row, column), without the scale.
    fn at(&self, expert: usize, row: usize, column: usize) -> f64 {
        let levels = (0..RANK).map(|level| {
            let a = self.a[(expert * RANK + level) * self.across + column];
            let b = self.b[row * EXPERTS * RANK + level * EXPERTS + expert];
            f64::from(a) * f64::from(b)
        });
        levels.sum()
    }
}

fn config(targets: &[&str], version: &str) -> Peft {
    let peft = Peft::new(RANK, 3.0).field("target_modules", json!([]));
    peft.field("target_parameters", json!(targets)).field("peft_version", version)
}

/// gate_up_proj and down_proj as matrices × rows × columns.
fn base(bench: &Bench, gate_up: [usize; 2], down: [usize; 2]) -> std::path::PathBuf {
    let mut random = Random::new(5);
    let mut file = Tensors::new();
    for (name, [rows, columns]) in [("gate_up_proj", gate_up), ("down_proj", down)] {
        let values = random.values(EXPERTS * rows * columns, 1.0);
        file = file.f32(&format!("{AT}.{name}"), &[EXPERTS, rows, columns], &values);
    }
    file.save(&bench.path("base.safetensors"))
}

/// Holds every element of a merged stack to the base's + `delta(expert, row, column)`.
fn check(merged: &Path, base: &Path, name: &str, delta: impl Fn(usize, usize, usize) -> f64) {
    let (name, scale) = (format!("{AT}.{name}"), 3.0 / RANK as f64);
    let (before, after) = (read(base).remove(&name).expect("there"), read(merged));
    let (rows, columns) = (before.shape[1], before.shape[2]);
    let pairs = before.values().into_iter().zip(after[&name].values());
    for (at, (before, after)) in pairs.enumerate() {
        let exact = delta(at / columns / rows, at / columns % rows, at % columns);
        let exact = before + scale * exact;
        assert!((after - exact).abs() < 1e-5, "{name} at {at}: {after}, expected {exact}");
    }
}

#[test]
fn rows_of_a_go_by_expert_and_columns_of_b_by_level() {
    let bench = Bench::new();
    let adapter = Peft::new(2, 2.0)
        .field("target_modules", json!([]))
        .field("target_parameters", json!(["experts.down_proj"]))
        .field("peft_version", "0.21.2")
        .tensor(&format!("{AT}.lora_A.weight"), &[4, 1], &[1.0, 2.0, 3.0, 4.0])
        .tensor(&format!("{AT}.lora_B.weight"), &[1, 4], &[10.0, 20.0, 30.0, 40.0])
        .save(&bench.path("adapter"));
    let base = Tensors::new().f32(&format!("{AT}.down_proj"), &[2, 1, 1], &[0.0, 0.0]);
    let base = base.save(&bench.path("base.safetensors"));
    let merged = read(&bench.merge(&base, &[&adapter], "--verify"));
    assert_eq!(merged[&format!("{AT}.down_proj")].values(), [70.0, 220.0]);
}

#[test]
fn every_layout_of_factors_and_bases_is_told_apart() {
    let targets = ["experts.gate_up_proj", "experts.down_proj"];
    // (whether the base's stacks are inputs × outputs, the release, whether A's columns are outputs)
    for (turned, version, crossed) in [
        (false, "0.21.2", false),
        (true, "0.21.2", false),
        (true, "0.21.2", true),
        (false, "0.18.1", true),
        (true, "0.18.1", false),
    ] {
        let bench = Bench::new();
        let stored = |seed, outputs, inputs| match crossed {
            true => Stored::new(seed, outputs, inputs),
            false => Stored::new(seed, inputs, outputs),
        };
        let (both, down) = (stored(1, 2 * INNER, HIDDEN), stored(2, HIDDEN, INNER));
        let shape = |outputs, inputs| if turned { [inputs, outputs] } else { [outputs, inputs] };
        let base = base(&bench, shape(2 * INNER, HIDDEN), shape(HIDDEN, INNER));
        let all = both.put(config(&targets, version), &format!("{AT}.base_layer"));
        let all = down.put(all, AT).save(&bench.path("both"));
        let one = both.put(config(&targets[..1], version), AT).save(&bench.path("one"));
        // B·A as stored is (outputs × inputs), or the other way round if crossed.
        let straight = crossed == turned;
        for adapter in [&all, &one] {
            let merged = bench.merge(&base, &[adapter], "--verify");
            check(&merged, &base, "gate_up_proj", |expert, row, column| match straight {
                true => both.at(expert, row, column),
                false => both.at(expert, column, row),
            });
            let adapted = adapter == &all;
            check(&merged, &base, "down_proj", |expert, row, column| match (adapted, straight) {
                (false, _) => 0.0,
                (true, true) => down.at(expert, row, column),
                (true, false) => down.at(expert, column, row),
            });
        }
    }
}

#[test]
fn squares_are_told_by_the_release() {
    for (turned, version, straight) in [
        (false, "0.19.0", true),
        (false, "0.18.0", false),
        (true, "0.18.0", false),
        (true, "0.20.0", false),
    ] {
        let bench = Bench::new();
        // down_proj is square, gate_up_proj shows which way stacks lie.
        let shape = if turned { [INNER, 2 * INNER] } else { [2 * INNER, INNER] };
        let base = base(&bench, shape, [INNER, INNER]);
        let down = Stored::new(2, INNER, INNER);
        let adapter = down.put(config(&["experts.down_proj"], version), AT);
        let merged = bench.merge(&base, &[&adapter.save(&bench.path("a"))], "");
        check(&merged, &base, "down_proj", |expert, row, column| match straight {
            true => down.at(expert, row, column),
            false => down.at(expert, column, row),
        });
    }
}

/// What a command says, with its exit code.
fn say(arguments: &[&str]) -> (Option<i32>, String, Value) {
    let done = lora_tool().args(arguments).output().expect("it runs");
    let json = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned(), json)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn sound(bench: &Bench, name: &str, seed: u64, version: &str) -> std::path::PathBuf {
    let targets = ["experts.gate_up_proj", "experts.down_proj"];
    let (both, down) = (Stored::new(seed, HIDDEN, 2 * INNER), Stored::new(seed + 1, INNER, HIDDEN));
    let adapter = both.put(config(&targets, version), &format!("{AT}.base_layer"));
    down.put(adapter, AT).save(&bench.path(name))
}

#[test]
fn what_does_not_go_together_is_refused() {
    let bench = Bench::new();
    let base = base(&bench, [2 * INNER, HIDDEN], [HIDDEN, INNER]);
    let one = Stored::new(1, HIDDEN, 2 * INNER);
    for (name, adapter, expected) in [
        (
            "few",
            one.put(config(&["experts.gate_up_proj", "experts.down_proj"], "0.21.2"), AT),
            "names 2",
        ),
        (
            "many",
            one.put(one.put(config(&["experts.up_proj"], "1.0"), AT), &format!("{AT}.base_layer")),
            "has 2 pairs",
        ),
        (
            "order",
            one.put(
                one.put(config(&["experts.first", "experts.second"], "1.0"), AT),
                &format!("{AT}.base_layer"),
            ),
            "first, second",
        ),
        (
            "stack",
            one.put(config(&["experts.weight"], "1.0"), AT),
            "3 of 3 adapter tensors fit nothing",
        ),
        (
            "rank",
            one.put(config(&["experts.gate_up_proj"], "1.0").field("r", 4), AT),
            "no whole number of experts",
        ),
        (
            "stray",
            one.put(config(&["experts.gate_up_proj"], "1.0"), AT).tensor(
                &format!("{AT}.lora_magnitude_vector"),
                &[2 * INNER],
                &[1.0; 2 * INNER],
            ),
            "which has no such tensor",
        ),
    ] {
        let said = bench.refuse(&base, &[&adapter.save(&bench.path(name))], "");
        assert!(said.contains(expected) && said.contains("hint:"), "{name}: {said}");
    }
    let lacking = one.put(config(&["experts.gate_up_proj", "x.weight"], "1.0"), AT);
    let lacking = lacking.save(&bench.path("lacking"));
    let shape = [EXPERTS, 2 * INNER, HIDDEN];
    let stack = Tensors::new().f32(
        &format!("{AT}.gate_up_proj"),
        &shape,
        &[1.0; EXPERTS * 2 * INNER * HIDDEN],
    );
    let with = stack.clone().f32("model.layers.0.x.weight", &[1, 1], &[1.0]);
    let said = bench.refuse(&with.save(&bench.path("with.safetensors")), &[&lacking], "");
    assert!(said.contains("names 1: x.weight") && said.contains("hint:"), "{said}");
    // Of a parameter that the base does not have, nothing was lost.
    bench.merge(&stack.save(&bench.path("without.safetensors")), &[&lacking], "");
}

#[test]
fn sides_that_only_the_base_tells_need_it() {
    let bench = Bench::new();
    let base = base(&bench, [2 * INNER, HIDDEN], [HIDDEN, INNER]);
    let old = Stored::new(1, 2 * INNER, HIDDEN);
    let old = old.put(config(&["experts.gate_up_proj"], "0.18.0"), AT).save(&bench.path("old"));
    let out = bench.path("out");
    let (code, said, _) = say(&["resize", text(&old), "--rank", "1", "-o", text(&out)]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("before 0.19") && said.contains("--against"), "{said}");
    let (code, _, json) = say(&["inspect", text(&old), "--modules", "--json"]);
    assert_eq!((code, json["items"][0]["warnings"].as_array().map(Vec::len)), (Some(0), Some(1)));
    let (code, said, json) = say(&["inspect", text(&old), "--against", text(&base), "--json"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(json["items"][0]["warnings"], json!([]));
    let first = &json["items"][0]["modules"][0];
    assert_eq!((&first["out"], &first["in"]), (&json!(2 * INNER), &json!(HIDDEN)));
    assert_eq!(first["base_tensor"], json!(format!("{AT}.gate_up_proj")));
}

#[test]
fn modules_are_shown_for_every_expert() {
    let bench = Bench::new();
    let adapter = sound(&bench, "adapter", 1, "0.21.2");
    let (code, _, json) = say(&["inspect", text(&adapter), "--modules", "--json"]);
    let item = &json["items"][0];
    assert_eq!((code, &item["warnings"]), (Some(0), &json!([])));
    let modules = item["modules"].as_array().expect("modules");
    assert_eq!(modules.len(), 2 * EXPERTS);
    assert_eq!(modules[0]["name"], json!(format!("{AT}.0.down_proj")));
    assert_eq!((&modules[0]["rank"], &modules[0]["scale"]), (&json!(RANK), &json!(1.5)));
    // Every tensor is counted once.
    let parameters = EXPERTS * RANK * (HIDDEN + 2 * INNER + INNER + HIDDEN);
    assert_eq!(item["parameters"], json!(parameters));
}

#[test]
fn what_is_written_is_a_stack_again() {
    let bench = Bench::new();
    let base = base(&bench, [2 * INNER, HIDDEN], [HIDDEN, INNER]);
    let (first, second) = (sound(&bench, "a", 1, "0.21.2"), sound(&bench, "b", 7, "0.21.2"));
    let merged = read(&bench.merge(&base, &[&first, &second], "-w 0.5 2"));
    let out = bench.path("combined");
    let (code, said, _) =
        say(&["combine", text(&first), text(&second), "-w", "0.5", "2", "-o", text(&out)]);
    assert_eq!(code, Some(0), "{said}");
    let written = read(&out.join("adapter_model.safetensors"));
    let nested = &written[&format!("base_model.model.{AT}.base_layer.lora_A.weight")];
    assert_eq!(nested.shape, [EXPERTS * 2 * RANK, HIDDEN]);
    let text_of = std::fs::read(out.join("adapter_config.json")).expect("a config");
    let config: Value = serde_json::from_slice(&text_of).expect("JSON");
    let names = ["down_proj", "gate_up_proj"].map(|name| format!("{AT}.{name}"));
    assert_eq!(config["target_parameters"], json!(names));
    assert_eq!(config["target_modules"], json!([]));
    for (name, tensor) in read(&bench.merge(&base, &[&out], "")) {
        for (got, exact) in tensor.values().iter().zip(merged[&name].values()) {
            assert!((got - exact).abs() < 1e-5, "{name}: {got}, expected {exact}");
        }
    }
    // Experts may be left out: the stack keeps its length.
    let part = bench.path("part");
    let (code, said, _) =
        say(&["resize", text(&first), "--rank", "1", "--exclude", r"\.2\.", "-o", text(&part)]);
    assert_eq!(code, Some(0), "{said}");
    let changed = read(&bench.merge(&base, &[&part], ""));
    let before = read(&base);
    let name = format!("{AT}.down_proj");
    let last = 2 * HIDDEN * INNER;
    assert_eq!(changed[&name].values()[last..], before[&name].values()[last..]);
    assert_ne!(changed[&name].values()[..last], before[&name].values()[..last]);
}

#[test]
fn a_conversion_keeps_every_bit_and_the_layout() {
    let bench = Bench::new();
    for (name, crossed, version) in [("a", false, "0.21.2"), ("b", true, "0.18.0")] {
        let stored = |seed, outputs, inputs| match crossed {
            true => Stored::new(seed, outputs, inputs),
            false => Stored::new(seed, inputs, outputs),
        };
        let targets = ["experts.gate_up_proj", "experts.down_proj"];
        let adapter = stored(1, 2 * INNER, HIDDEN)
            .put(config(&targets, version), &format!("{AT}.base_layer"));
        let adapter = stored(2, HIDDEN, INNER).put(adapter, AT).save(&bench.path(name));
        let out = bench.path(&format!("{name}-out"));
        let (code, said, _) = say(&["convert", text(&adapter), "--to", "peft", "-o", text(&out)]);
        assert_eq!(code, Some(0), "{said}");
        let file = |path: &Path| read(&path.join("adapter_model.safetensors"));
        assert_eq!(file(&out), file(&adapter));
    }
}

#[test]
fn stacks_and_single_experts_do_not_mix_in_one_file() {
    let bench = Bench::new();
    let stack = sound(&bench, "stack", 1, "0.21.2");
    let single = Peft::new(1, 1.0)
        .linear(&format!("{AT}.0.gate_proj"), 1, &[1.0; HIDDEN], &[1.0; INNER])
        .save(&bench.path("single"));
    let out = bench.path("out");
    let (code, said, _) = say(&["combine", text(&stack), text(&single), "-o", text(&out)]);
    assert_eq!((code, out.exists()), (Some(2), false));
    assert!(said.contains("by expert") && said.contains("merge the adapters"), "{said}");
    let (code, said, _) = say(&["resize", text(&stack), "--rank", "size:4KiB", "-o", text(&out)]);
    assert_eq!((code, out.exists()), (Some(2), false));
    assert!(said.contains("one rank"), "{said}");
    // A base takes both.
    let base = base(&bench, [2 * INNER, HIDDEN], [HIDDEN, INNER]);
    bench.merge(&base, &[&stack, &single], "--verify");
}

#[test]
fn llama_cpp_gets_stacks_of_gates_ups_and_downs() {
    for model in ["qwen3_moe", "olmoe"] {
        llama_cpp_gets_stacks(model);
    }
}

fn llama_cpp_gets_stacks(model: &str) {
    let bench = Bench::new();
    let adapter = sound(&bench, "adapter", 1, "0.21.2");
    let base = base(&bench, [2 * INNER, HIDDEN], [HIDDEN, INNER]);
    let reference = bench.path("reference");
    std::fs::create_dir(&reference).expect("a directory");
    let config = |experts: usize| {
        let config = json!({ "model_type": model, "num_experts": experts,
            "num_attention_heads": 2 });
        std::fs::write(reference.join("config.json"), config.to_string()).expect("written");
    };
    config(EXPERTS);
    let (out, again) = (bench.path("out.gguf"), bench.path("again"));
    let to_gguf = ["convert", text(&adapter), "--to", "gguf", "--reference", text(&reference)];
    let (code, said, json) = say(&[&to_gguf[..], &["-o", text(&out), "--json"]].concat());
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(json["modules"].as_array().map(Vec::len), Some(3 * EXPERTS));
    let file = std::fs::read(&out).expect("a file");
    let holds = |name: &str| file.windows(name.len()).any(|part| part == name.as_bytes());
    assert!(
        holds("blk.0.ffn_gate_exps.weight.lora_a") && holds("blk.0.ffn_down_exps.weight.lora_b")
    );
    assert!(!holds("ffn_gate_exps.0"));
    let (code, said, _) = say(&["convert", text(&out), "--to", "peft", "-o", text(&again)]);
    assert_eq!(code, Some(0), "{said}");
    let exact = read(&bench.merge(&base, &[&adapter], ""));
    for merged in [bench.merge(&base, &[&out], ""), bench.merge(&base, &[&again], "")] {
        for (name, tensor) in read(&merged) {
            for (got, exact) in tensor.values().iter().zip(exact[&name].values()) {
                assert!((got - exact).abs() < 1e-5, "{name}: {got}, expected {exact}");
            }
        }
    }
    // One expert too few for the base, and a program that has them otherwise.
    config(EXPERTS + 1);
    let refused = bench.path("refused.gguf");
    let (code, said, _) = say(&[&to_gguf[..], &["-o", text(&refused)]].concat());
    assert_eq!((code, refused.exists()), (Some(2), false));
    assert!(said.contains("number from the base's"), "{said}");
}

/// mlx-lm has a stack for gates, one for ups and one for downs, each [E, rank, in] and [E, out, rank].
#[test]
fn mlx_lm_gets_stacks_of_gates_ups_and_downs() {
    let bench = Bench::new();
    let adapter = sound(&bench, "adapter", 1, "0.21.2");
    let base = base(&bench, [2 * INNER, HIDDEN], [HIDDEN, INNER]);
    let reference = bench.path("reference");
    std::fs::create_dir(&reference).expect("a directory");
    let config = |model: &str, experts: usize| {
        let config = json!({ "model_type": model, "num_experts": experts,
            "num_attention_heads": 2 });
        std::fs::write(reference.join("config.json"), config.to_string()).expect("written");
    };
    let out = bench.path("mlx");
    let alone = ["convert", text(&adapter), "--to", "mlx", "-o", text(&out)];
    let informed = [&alone[..], &["--reference", text(&reference)]].concat();
    for (refused, why) in
        [(&alone[..], "its class of the base names"), (&informed, "from the base's")]
    {
        config("olmoe", EXPERTS + 1);
        let (code, said, _) = say(refused);
        assert_eq!((code, out.exists()), (Some(2), false), "{said}");
        assert!(said.contains(why), "{said}");
    }
    // A class of this type has a dense layer there.
    config("llama4_text", EXPERTS);
    let (code, said, _) = say(&informed);
    assert_eq!((code, out.exists()), (Some(2), false), "{said}");
    assert!(said.contains("has no such experts"), "{said}");
    config("olmoe", EXPERTS);
    let (code, said, _) = say(&informed);
    assert_eq!(code, Some(0), "{said}");
    let tensors = read(&out.join("adapters.safetensors"));
    let shapes: Vec<(&str, &[usize])> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), &tensor.shape[..])).collect();
    let own = |name: &str| format!("model.layers.0.mlp.switch_mlp.{name}");
    let expected = [
        (own("down_proj.lora_a"), [EXPERTS, RANK, INNER]),
        (own("down_proj.lora_b"), [EXPERTS, HIDDEN, RANK]),
        (own("gate_proj.lora_a"), [EXPERTS, RANK, HIDDEN]),
        (own("gate_proj.lora_b"), [EXPERTS, INNER, RANK]),
        (own("up_proj.lora_a"), [EXPERTS, RANK, HIDDEN]),
        (own("up_proj.lora_b"), [EXPERTS, INNER, RANK]),
    ];
    let expected: Vec<(&str, &[usize])> =
        expected.iter().map(|(name, shape)| (name.as_str(), &shape[..])).collect();
    assert_eq!(shapes, expected);
    let written = std::fs::read(out.join("adapter_config.json")).expect("a config");
    let written: Value = serde_json::from_slice(&written).expect("JSON");
    let keys = ["down_proj", "gate_proj", "up_proj"].map(|name| format!("mlp.switch_mlp.{name}"));
    assert_eq!(written["lora_parameters"]["keys"], json!(keys));
    // mlx-lm's own arithmetic: weight + scale · lora_b @ lora_a, expert by expert.
    let scale = written["lora_parameters"]["scale"].as_f64().expect("a scale");
    let merged = read(&bench.merge(&base, &[&adapter], ""));
    let before = read(&base);
    let (stack, plain) = (format!("{AT}.down_proj"), "down_proj");
    let (a, b) = (
        tensors[&own(&format!("{plain}.lora_a"))].values(),
        tensors[&own(&format!("{plain}.lora_b"))].values(),
    );
    for (at, (after, before)) in
        merged[&stack].values().iter().zip(before[&stack].values()).enumerate()
    {
        let (expert, row, column) = (at / (HIDDEN * INNER), at / INNER % HIDDEN, at % INNER);
        let levels = (0..RANK).map(|level| {
            b[(expert * HIDDEN + row) * RANK + level] * a[(expert * RANK + level) * INNER + column]
        });
        let delta = scale * levels.sum::<f64>();
        assert!((after - before - delta).abs() < 1e-5, "{at}: {after}, {before} + {delta}");
    }
    let through = read(&bench.merge(&base, &[&out], ""));
    for (name, tensor) in merged {
        for (got, exact) in through[&name].values().iter().zip(tensor.values()) {
            assert!((got - exact).abs() < 1e-5, "{name}: {got}, expected {exact}");
        }
    }
}

/// Its class of gpt-oss has the stacks in `experts`, and gates and ups apart that take turns in transformers'.
#[test]
fn mlx_lm_gets_the_stacks_of_gpt_oss_where_its_class_has_them() {
    let bench = Bench::new();
    let adapter = sound(&bench, "adapter", 1, "0.21.2");
    let reference = bench.path("reference");
    std::fs::create_dir(&reference).expect("a directory");
    let config = |model: &str| {
        let config =
            json!({ "model_type": model, "num_local_experts": EXPERTS, "num_attention_heads": 2 });
        std::fs::write(reference.join("config.json"), config.to_string()).expect("written");
    };
    config("gpt_oss");
    let (out, back) = (bench.path("mlx"), bench.path("back"));
    let convert = |from: &Path, to: &str, out: &Path| {
        say(&["convert", text(from), "--to", to, "--reference", text(&reference), "-o", text(out)])
    };
    let (code, said, _) = convert(&adapter, "mlx", &out);
    assert_eq!(code, Some(0), "{said}");
    let tensors = read(&out.join("adapters.safetensors"));
    let first = "model.layers.0.mlp.experts";
    let names: Vec<String> = ["down_proj", "gate_proj", "up_proj"]
        .iter()
        .flat_map(|matrix| ["lora_a", "lora_b"].map(|factor| format!("{first}.{matrix}.{factor}")))
        .collect();
    assert_eq!(tensors.keys().cloned().collect::<Vec<_>>(), names);
    // Row 0 of the up projection is row 1 of the stack.
    let peft = read(&adapter.join("adapter_model.safetensors"));
    let joint = &peft.iter().find(|(name, _)| name.contains("base_layer.lora_B")).expect("there").1;
    let row = |values: &[f64], row: usize| values[row * RANK..(row + 1) * RANK].to_vec();
    let up = row(&tensors[&format!("{first}.up_proj.lora_b")].values(), 0);
    let expected: Vec<f64> =
        (0..RANK).map(|level| joint.values()[EXPERTS * RANK + level * EXPERTS]).collect();
    assert_eq!(up, expected);
    for (model, rule) in
        [("gpt_oss", None), ("olmoe", Some("expert-stacks")), ("internvl", Some("class"))]
    {
        config(model);
        let (code, _, report) =
            say(&["check", text(&out), "--for", "mlx", "--against", text(&reference), "--json"]);
        assert_eq!(code, Some(i32::from(rule.is_some())), "{report}");
        let named = |rule: &str| report.to_string().contains(&format!("\"{rule}\""));
        assert!(rule.is_none_or(named), "{report}");
    }
    config("gpt_oss");
    let (code, said, _) = convert(&out, "peft", &back);
    assert_eq!(code, Some(0), "{said}");
    let modules = |path: &Path| read(&path.join("adapter_model.safetensors")).into_keys().count();
    assert_eq!(modules(&back), 2 * 3 * EXPERTS);
}
