//! Two checkpoints of one model, however each is stored: merge, extract, diff and undo take the same tensors for
//! the same ones, and the numbers are those of plain f64 loops.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use crate::common::{Bench, Random, Tensors, lora_tool, read, rounded};
use lora_tool::format::Dtype;
use serde_json::{Value, json};

const HIDDEN: usize = 16;
const WORDS: usize = 24;
const Q: &str = "layers.0.self_attn.q_proj.weight";
const UP: &str = "layers.1.mlp.up_proj.weight";
const NORM: &str = "norm.weight";
const EMBEDDING: &str = "embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// How a checkpoint is stored.
#[derive(Debug, Clone, Copy)]
struct Stored {
    /// Before all names but the head's.
    root: &'static str,
    /// Before the head's name; `None` where it is tied and not stored.
    head: Option<&'static str>,
    dtype: Dtype,
    shards: usize,
}

const PLAIN: Stored = Stored { root: "model.", head: Some(""), dtype: Dtype::F32, shards: 1 };

impl Stored {
    fn name(&self, tensor: &str) -> Option<String> {
        match tensor {
            HEAD => self.head.map(|root| format!("{root}{HEAD}")),
            _ => Some(format!("{}{tensor}", self.root)),
        }
    }
}

/// The values of a model, by plain names; the head is the embedding where it is tied.
type Model = Vec<(&'static str, Vec<usize>, Vec<f32>)>;

fn model(seed: u64, dtype: Dtype, tied: bool) -> Model {
    let mut random = Random::new(seed);
    let mut tensor = |name: &'static str, shape: &[usize]| {
        let values = random.values(shape.iter().product(), 1.0);
        let values = values.iter().map(|value| rounded(dtype, f64::from(*value)) as f32);
        (name, shape.to_vec(), values.collect::<Vec<f32>>())
    };
    let mut model: Model = vec![
        tensor(EMBEDDING, &[WORDS, HIDDEN]),
        tensor(Q, &[HIDDEN, HIDDEN]),
        tensor(UP, &[2 * HIDDEN, HIDDEN]),
        tensor(NORM, &[HIDDEN]),
        tensor(HEAD, &[WORDS, HIDDEN]),
    ];
    if tied {
        let embedding = model[0].2.clone();
        model[4].2 = embedding;
    }
    model
}

/// The model with another `q`: a change of rank 2.
fn tuned(base: &Model) -> Model {
    let mut random = Random::new(77);
    let (up, down) = (random.values(HIDDEN * 2, 0.5), random.values(2 * HIDDEN, 0.5));
    let mut tuned = base.clone();
    for (at, value) in tuned[1].2.iter_mut().enumerate() {
        let (row, column) = (at / HIDDEN, at % HIDDEN);
        *value += (0..2).map(|k| up[row * 2 + k] * down[k * HIDDEN + column]).sum::<f32>();
    }
    tuned
}

/// Writes a model as a directory: its shards with their index, and its config.
fn save(model: &Model, stored: Stored, directory: &Path) -> PathBuf {
    let tied = stored.head.is_none();
    let mut shards = vec![Tensors::new(); stored.shards];
    let mut map = serde_json::Map::new();
    for (at, (tensor, shape, values)) in model.iter().enumerate() {
        let Some(name) = stored.name(tensor) else { continue };
        let shard = at % stored.shards;
        shards[shard] = shards[shard].clone().float(&name, stored.dtype, shape, values);
        map.insert(name, json!(file(shard, stored.shards)));
    }
    for (shard, tensors) in shards.iter().enumerate() {
        tensors.save(&directory.join(file(shard, stored.shards)));
    }
    let write = |name: &str, value: Value| {
        std::fs::write(directory.join(name), value.to_string()).expect("written");
    };
    if stored.shards > 1 {
        write("model.safetensors.index.json", json!({ "metadata": {}, "weight_map": map }));
    }
    let architectures = json!(["LlamaForCausalLM"]);
    write("config.json", json!({ "architectures": architectures, "tie_word_embeddings": tied }));
    directory.to_path_buf()
}

fn file(shard: usize, shards: usize) -> String {
    match shards {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{shards:05}.safetensors", shard + 1),
    }
}

/// Runs a command; its code, its JSON (null if it failed), what it said.
fn run(line: &[&str], paths: &[&Path]) -> (Option<i32>, Value, String) {
    let mut command = lora_tool();
    command.arg(line[0]).args(paths).args(&line[1..]);
    let done = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.code(), serde_json::from_slice(&done.stdout).unwrap_or(Value::Null), said)
}

/// The values that a checkpoint stores, held to a model's.
#[track_caller]
fn holds(path: &Path, stored: Stored, model: &Model, tolerance: f64, label: &str) {
    let found = read(path);
    let wanted =
        model.iter().filter_map(|(tensor, _, values)| Some((stored.name(tensor)?, values)));
    let wanted: Vec<_> = wanted.collect();
    assert_eq!(found.len(), wanted.len(), "{label}: {:?}", found.keys());
    for (name, values) in wanted {
        let own = found.get(&name).unwrap_or_else(|| panic!("{label}: no {name}")).values();
        for (value, exact) in own.iter().zip(values) {
            let exact = f64::from(*exact);
            assert!((value - exact).abs() <= tolerance, "{label}: {name}: {value}, not {exact}");
        }
    }
}

/// Every pair of ways to store, by a label.
fn pairs() -> Vec<(&'static str, Stored, Stored)> {
    let rootless = Stored { root: "", ..PLAIN };
    let vision = Stored { root: "model.language_model.", head: Some("model."), ..PLAIN };
    let older = Stored { root: "language_model.model.", head: Some("language_model."), ..PLAIN };
    let inside = Stored { root: "student.model.", head: Some("student."), ..PLAIN };
    let sharded = Stored { shards: 3, ..PLAIN };
    let half = Stored { dtype: Dtype::BF16, ..PLAIN };
    let tied = Stored { head: None, ..PLAIN };
    vec![
        ("the same", PLAIN, PLAIN),
        ("without model.", PLAIN, rootless),
        ("with model.", rootless, PLAIN),
        ("a newer release", older, vision),
        ("an older release", vision, older),
        ("below a root of its own", PLAIN, inside),
        ("above it", inside, PLAIN),
        ("other shards", PLAIN, sharded),
        ("fewer shards", sharded, rootless),
        ("another dtype", half, PLAIN),
        ("both tied", tied, tied),
        ("the tuned head stored", tied, PLAIN),
        ("the tuned head tied", PLAIN, tied),
        ("all at once", Stored { root: "", ..tied }, Stored { shards: 2, ..PLAIN }),
    ]
}

#[test]
fn all_verbs_agree_on_any_pair() {
    for (label, first, second) in pairs() {
        let bench = Bench::new();
        let tied = first.head.is_none() || second.head.is_none();
        let base = model(1, first.dtype, tied);
        let made = tuned(&base);
        let before = save(&base, first, &bench.path("base"));
        let after = save(&made, second, &bench.path("tuned"));
        let same = save(&base, second, &bench.path("same"));

        let (code, report, said) = run(&["diff", "--json"], &[&before, &after]);
        assert_eq!(code, Some(1), "{label}: {said}");
        let different: Vec<&str> = report["different"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|differs| differs["relative"] != json!(0.0))
            .map(|differs| differs["name"].as_str().expect("a name"))
            .collect();
        assert_eq!(different, [first.name(Q).expect("a name")], "{label}");
        assert_eq!(report["only_a"], json!([]), "{label}");
        assert_eq!(report["only_b"], json!([]), "{label}");
        let (code, _, said) = run(&["diff", "--tolerance", "1e-9"], &[&before, &same]);
        assert_eq!(code, Some(0), "{label}, nothing changed: {said}");

        let (merged, receipt) = (bench.path("merged"), bench.path("merged.receipt"));
        let to = merged.to_string_lossy().into_owned();
        let kept = receipt.to_string_lossy().into_owned();
        let (code, _, said) = run(&["merge", "--receipt", &kept, "-o", &to], &[&before, &after]);
        assert_eq!(code, Some(0), "{label}, merge: {said}");
        let step = if first.dtype == Dtype::BF16 { 2e-2 } else { 1e-6 };
        holds(&merged, first, &made, step, &format!("{label}, merge"));

        let undone = bench.path("undone");
        let to = undone.to_string_lossy().into_owned();
        let (code, _, said) = run(&["undo", "--receipt", &kept, "-o", &to], &[&merged]);
        assert_eq!(code, Some(0), "{label}, undo: {said}");
        holds(&undone, first, &base, 0.0, &format!("{label}, undo"));

        let adapter = bench.path("adapter");
        let to = adapter.to_string_lossy().into_owned();
        let line = ["extract", "--rank", "2", "--json", "-o", &to];
        let (code, report, said) = run(&line, &[&before, &after]);
        assert_eq!(code, Some(0), "{label}, extract: {said}");
        assert_eq!(report["modules"].as_array().map(Vec::len), Some(1), "{label}: {report}");
        assert_eq!(report["left_out"], json!([]), "{label}");
        let again = bench.path("again");
        let to = again.to_string_lossy().into_owned();
        let (code, _, said) = run(&["merge", "-o", &to], &[&before, &adapter]);
        assert_eq!(code, Some(0), "{label}, merge of what was extracted: {said}");
        holds(&again, first, &made, step.max(1e-5), &format!("{label}, merged again"));
        let (code, _, said) = run(&["extract", "--rank", "2", "-o", &to, "-f"], &[&before, &same]);
        assert_eq!(code, Some(2), "{label}, nothing to extract");
        assert!(said.contains("the same in both"), "{label}: {said}");
    }
}

/// An embedding that both tie is changed on both its sides.
#[test]
fn what_is_tied_stays_tied() {
    let bench = Bench::new();
    let tied = Stored { head: None, ..PLAIN };
    let base = model(1, Dtype::F32, true);
    let mut made = base.clone();
    let mut random = Random::new(5);
    let (up, down) = (random.values(WORDS, 0.5), random.values(HIDDEN, 0.5));
    for at in 0..WORDS * HIDDEN {
        made[0].2[at] += up[at / HIDDEN] * down[at % HIDDEN];
    }
    made[4].2 = made[0].2.clone();
    let before = save(&base, tied, &bench.path("base"));
    let after = save(&made, PLAIN, &bench.path("tuned"));
    let adapter = bench.path("adapter");
    let to = adapter.to_string_lossy().into_owned();
    let line = ["extract", "--rank", "1", "--embeddings", "-o", &to];
    let (code, _, said) = run(&line, &[&before, &after]);
    assert_eq!(code, Some(0), "{said}");
    let merged = bench.path("merged");
    let to = merged.to_string_lossy().into_owned();
    let (code, _, said) = run(&["merge", "-o", &to], &[&before, &adapter]);
    assert_eq!(code, Some(0), "{said}");
    holds(&merged, tied, &made, 1e-5, "tied");
}

/// A head of its own started as the base's embedding.
#[test]
fn a_head_that_parted_is_a_module() {
    let bench = Bench::new();
    let tied = Stored { head: None, ..PLAIN };
    let base = model(1, Dtype::F32, true);
    let mut made = base.clone();
    for (at, value) in made[4].2.iter_mut().enumerate() {
        *value += 0.25 * (at % HIDDEN) as f32;
    }
    let before = save(&base, tied, &bench.path("base"));
    let after = save(&made, PLAIN, &bench.path("tuned"));
    for verb in ["extract", "merge"] {
        let merged = bench.path(&format!("by {verb}"));
        let to = merged.to_string_lossy().into_owned();
        let mut input = after.clone();
        if verb == "extract" {
            input = bench.path("adapter");
            let adapter = input.to_string_lossy().into_owned();
            let line = ["extract", "--rank", "1", "-o", &adapter];
            let (code, _, said) = run(&line, &[&before, &after]);
            assert_eq!(code, Some(0), "{said}");
        }
        let (code, _, said) = run(&["merge", "-o", &to], &[&before, &input]);
        assert_eq!(code, Some(0), "{verb}: {said}");
        holds(&merged, PLAIN, &made, 1e-5, verb);
    }
}
