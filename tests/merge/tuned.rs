//! Fine-tuned checkpoints merged where adapters stand, against plain f64 loops.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use crate::common::{Bench, Peft, Random, Tally, Tensors, product, read, rounded};
use lora_tool::format::Dtype;

const ROWS: usize = 70;
const COLUMNS: usize = 130;
const COUNT: usize = ROWS * COLUMNS;

/// A base of two matrices, a norm, an embedding, integers and a buffer of infinities, and
/// checkpoints tuned from it.
struct Model {
    bench: Bench,
    random: Random,
    q: Vec<f32>,
    k: Vec<f32>,
    norm: Vec<f32>,
}

/// How a checkpoint is spelled.
#[derive(Clone, Copy)]
struct How {
    dtype: Dtype,
    root: &'static str,
}

const PLAIN: How = How { dtype: Dtype::F32, root: "" };

impl Model {
    fn new() -> Self {
        let mut random = Random::new(11);
        let (q, k) = (random.values(COUNT, 1.0), random.values(COUNT, 1.0));
        let norm = random.values(COLUMNS, 1.0);
        Self { bench: Bench::new(), random, q, k, norm }
    }

    fn tensors(how: How, q: &[f32], k: &[f32], norm: &[f32]) -> Tensors {
        let name = |name: &str| format!("{}{name}", how.root);
        let endless: Vec<u8> =
            std::iter::repeat_n(f32::NEG_INFINITY.to_le_bytes(), 4).flatten().collect();
        Tensors::new()
            .float(&name("layers.0.q_proj.weight"), how.dtype, &[ROWS, COLUMNS], q)
            .float(&name("layers.0.k_proj.weight"), how.dtype, &[ROWS, COLUMNS], k)
            .float(&name("norm.weight"), how.dtype, &[COLUMNS], norm)
            .raw(
                &name("position_ids"),
                Dtype::I64,
                &[2],
                &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            )
            .raw(&name("mask"), Dtype::F32, &[4], &endless)
    }

    fn base(&self, how: How) -> PathBuf {
        let tensors = Self::tensors(how, &self.q, &self.k, &self.norm);
        tensors.save(&self.bench.path("base.safetensors"))
    }

    /// A checkpoint with another `q` and norm, and the base's `k`.
    fn tuned(&mut self, name: &str, how: How) -> (PathBuf, Vec<f32>, Vec<f32>) {
        let mut moved = |values: &[f32], by: f32| -> Vec<f32> {
            values.iter().map(|value| value + self.random.value(by)).collect()
        };
        let (q, norm) = (moved(&self.q, 0.1), moved(&self.norm, 0.1));
        let tensors = Self::tensors(how, &q, &self.k, &norm);
        (tensors.save(&self.bench.path(name)), q, norm)
    }

    fn adapter(&mut self) -> (PathBuf, Vec<f64>) {
        let (down, up) = (self.random.values(4 * COLUMNS, 0.3), self.random.values(ROWS * 4, 0.3));
        let adapter = Peft::new(4, 8.0).linear("layers.0.q_proj", 4, &down, &up);
        let delta = product(&up, &down, 4).iter().map(|value| 2.0 * value).collect();
        (adapter.save(&self.bench.path("adapter")), delta)
    }
}

fn wide(dtype: Dtype, values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| rounded(dtype, f64::from(*value))).collect()
}

/// base + Σ weight · (tuned − base) + delta.
fn exact(base: &[f64], tuned: &[(f64, Vec<f64>)], delta: &[f64]) -> Vec<f64> {
    let moved =
        |at: usize| tuned.iter().map(|(by, tuned)| by * (tuned[at] - base[at])).sum::<f64>();
    let delta = |at: usize| delta.get(at).copied().unwrap_or(0.0);
    base.iter().enumerate().map(|(at, value)| value + moved(at) + delta(at)).collect()
}

fn json(bench: &Bench, base: &Path, inputs: &[&Path], options: &str) -> serde_json::Value {
    let (_, done) = bench.run(base, inputs, &format!("{options} --json"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("JSON")
}

#[test]
fn one_checkpoint_at_weight_1_is_itself() {
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let mut model = Model::new();
        let how = How { dtype, root: "" };
        let base = model.base(how);
        let (tuned, ..) = model.tuned("tuned.safetensors", how);
        let out = model.bench.merge(&base, &[&tuned], "--verify");
        assert_eq!(read(&out), read(&tuned));
        let report = json(&model.bench, &base, &[&tuned], "");
        assert_eq!(report["tensors_changed"], 2, "q and the norm: {report}");
        assert_eq!(report["tensors_copied"], 3);
        assert_eq!(report["adapters"][0]["convention"], "checkpoint");
    }
}

#[test]
fn checkpoints_and_adapters_mix_with_weights_roots_and_dtypes() {
    let mut model = Model::new();
    let base = model.base(PLAIN);
    let root = How { dtype: Dtype::BF16, root: "model." };
    let (first, q1, norm1) = model.tuned("first.safetensors", PLAIN);
    let (second, q2, norm2) = model.tuned("second.safetensors", root);
    let (adapter, delta) = model.adapter();
    // bf16 cannot hold k, so the second checkpoint changes that as well.
    let k2 = wide(Dtype::BF16, &model.k);
    let options = "-w 0.7 0.5 -0.4 --module-weight norm=2 --verify";
    let out = model.bench.merge(&base, &[&first, &adapter, &second], options);
    let merged = read(&out);
    let (plain, bf16) =
        (|values: &[f32]| wide(Dtype::F32, values), |values: &[f32]| wide(Dtype::BF16, values));
    let delta: Vec<f64> = delta.iter().map(|value| 0.5 * value).collect();
    let mut tally = Tally::default();
    let q = exact(&plain(&model.q), &[(0.7, plain(&q1)), (-0.4, bf16(&q2))], &delta);
    tally.add("q", &merged["layers.0.q_proj.weight"], &q);
    let k = exact(&plain(&model.k), &[(-0.4, k2)], &[]);
    tally.add("k", &merged["layers.0.k_proj.weight"], &k);
    let norm = exact(&plain(&model.norm), &[(1.4, plain(&norm1)), (-0.8, bf16(&norm2))], &[]);
    tally.add("norm", &merged["norm.weight"], &norm);
    tally.check("mixed");
    let before = read(&base);
    for name in ["position_ids", "mask"] {
        assert_eq!(merged[name], before[name], "{name}");
    }
    // A tensor at a time, and any number of threads.
    for options in ["--threads 1", "--threads 8"] {
        let options = format!("-w 0.7 0.5 -0.4 --module-weight norm=2 {options}");
        let again = model.bench.merge(&base, &[&first, &adapter, &second], &options);
        assert_eq!(read(&again), merged, "{options}");
    }
}

#[test]
fn selections_and_negative_zeros_keep_the_bases_bytes() {
    let mut model = Model::new();
    model.q[5] = -0.0;
    model.norm[0] = -0.0;
    let base = model.base(PLAIN);
    let (mut q, norm) = (model.q.clone(), model.norm.clone());
    q[9] += 1.0;
    let tuned =
        Model::tensors(PLAIN, &q, &model.k, &norm).save(&model.bench.path("tuned.safetensors"));
    let out = model.bench.merge(&base, &[&tuned], "-w 0.5");
    let (merged, before) = (read(&out), read(&base));
    let changed = &merged["layers.0.q_proj.weight"].values();
    assert_eq!(changed[5].to_bits(), (-0.0f64).to_bits());
    assert_eq!(merged["norm.weight"], before["norm.weight"]);
    let out = model.bench.merge(&base, &[&tuned], "--exclude q_proj");
    assert_eq!(read(&out), before);
    let said = model.bench.refuse(&base, &[&tuned], "--include nothing");
    assert!(said.contains("no module is left for --include `nothing`"), "{said}");
}

#[test]
fn sharded_checkpoints_stand_for_whole_ones() {
    let mut model = Model::new();
    let base = model.base(PLAIN);
    let (tuned, ..) = model.tuned("tuned.safetensors", PLAIN);
    let whole = model.bench.merge(&base, &[&tuned], "-w 0.3");
    // The same in shards, made by a merge that changes nothing.
    let none = model.bench.path("none.safetensors");
    Peft::new(1, 1.0)
        .linear("layers.0.q_proj", 1, &[0.0; COLUMNS], &[0.0; ROWS])
        .save(&none.with_extension(""));
    let sharded = model.bench.merge(&tuned, &[&none.with_extension("")], "--max-shard-size 20kB");
    assert!(sharded.read_dir().expect("a directory").count() > 2, "several shards and an index");
    let out = model.bench.merge(&base, &[&sharded], "-w 0.3");
    assert_eq!(read(&out), read(&whole));
}

#[test]
fn tied_embeddings_follow_the_checkpoints() {
    let bench = Bench::new();
    let mut random = Random::new(5);
    let values = random.values(32, 1.0);
    let moved: Vec<f32> = values.iter().map(|value| value + 0.25).collect();
    let model = |name: &str, tied: bool, embedding: &[f32], head: Option<&[f32]>| {
        let directory = bench.path(name);
        let mut tensors = Tensors::new().f32("model.embed_tokens.weight", &[8, 4], embedding);
        if let Some(head) = head {
            tensors = tensors.f32("lm_head.weight", &[8, 4], head);
        }
        tensors.save(&directory.join("model.safetensors"));
        let config = format!(
            "{{\"architectures\": [\"LlamaForCausalLM\"], \"tie_word_embeddings\": {tied}}}"
        );
        std::fs::write(directory.join("config.json"), config).expect("written");
        directory
    };
    let base = model("base", true, &values, None);
    let head = "lm_head.weight";
    // Tied on both sides, or stored twice but the same: one tensor stays.
    for tuned in [model("tied", true, &moved, None), model("twice", false, &moved, Some(&moved))] {
        let merged = read(&bench.merge(&base, &[&tuned], ""));
        assert!(!merged.contains_key(head));
        assert_eq!(merged["model.embed_tokens.weight"].values(), wide(Dtype::F32, &moved));
    }
    // A head of its own: the result stores both.
    let own = model("own", false, &moved, Some(&values[..]));
    let out = bench.merge(&base, &[&own], "");
    let merged = read(&out);
    assert_eq!(merged[head].values(), wide(Dtype::F32, &values));
    let config = std::fs::read_to_string(out.join("config.json")).expect("a config");
    assert!(config.contains("\"tie_word_embeddings\": false"), "{config}");
    // A second, tied one then moves both.
    let tied = model("tied", true, &moved, None);
    let merged = read(&bench.merge(&base, &[&own, &tied], ""));
    let twice: Vec<f64> =
        values.iter().zip(&moved).map(|(a, b)| f64::from(a + 2.0 * (b - a))).collect();
    assert_eq!(merged["model.embed_tokens.weight"].values(), twice);
    assert_eq!(merged[head].values(), wide(Dtype::F32, &moved));
    // A base that stores both, and a checkpoint that ties.
    let parted = model("parted", false, &values, Some(&values[..]));
    let merged = read(&bench.merge(&parted, &[&tied], ""));
    assert_eq!(merged[head].values(), wide(Dtype::F32, &moved));
    let said = bench.refuse(&base, &[&own], "--keep-tied");
    assert!(said.contains("cannot stay tied"), "{said}");
}

#[test]
fn checkpoints_that_do_not_go_with_the_base_are_refused() {
    let mut model = Model::new();
    let base = model.base(PLAIN);
    let (q, k, norm) = (model.q.clone(), model.k.clone(), model.norm.clone());
    let whole = Model::tensors(PLAIN, &q, &k, &norm);
    let save = |tensors: &Tensors| tensors.save(&model.bench.path("other.safetensors"));
    let without = |name: &str| {
        let mut tensors = whole.clone();
        tensors.entries.retain(|(own, ..)| own != name);
        tensors
    };
    let refuse =
        |tensors: &Tensors, options: &str| model.bench.refuse(&base, &[&save(tensors)], options);

    let said = refuse(&without("norm.weight"), "");
    assert!(
        said.contains("1 of the base's are missing, 0 are not in the base, such as `norm.weight`"),
        "{said}"
    );
    assert!(said.contains("--allow-unmatched"), "{said}");
    model.bench.merge(&base, &[&save(&without("norm.weight"))], "--allow-unmatched");
    let said = refuse(&whole.clone().f32("extra.weight", &[2], &[0.0, 1.0]), "");
    assert!(said.contains("1 are not in the base, such as `extra.weight`"), "{said}");
    let said =
        refuse(&without("norm.weight").f32("norm.weight", &[COLUMNS + 1], &[0.0; COLUMNS + 1]), "");
    assert!(said.contains("`norm.weight`") && said.contains("[131]"), "{said}");
    let said = refuse(&without("position_ids").raw("position_ids", Dtype::I64, &[2], &[7; 16]), "");
    assert!(said.contains("`position_ids`") && said.contains("no difference to add"), "{said}");
    let mut broken = norm.clone();
    broken[3] = f32::NAN;
    let said = refuse(&Model::tensors(PLAIN, &q, &k, &broken), "");
    assert!(said.contains("other.safetensors: `norm.weight`: element 3 is NaN"), "{said}");
    // An adapter that replaces what the checkpoint changes.
    let (tuned, ..) = model.tuned("tuned.safetensors", PLAIN);
    let replacing = Peft::new(1, 1.0)
        .field("modules_to_save", serde_json::json!(["norm"]))
        .linear("layers.0.q_proj", 1, &[0.0; COLUMNS], &[0.0; ROWS])
        .tensor("norm.weight", &[COLUMNS], &norm)
        .save(&model.bench.path("replacing"));
    let said = model.bench.refuse(&base, &[&replacing, &tuned], "");
    assert!(said.contains("replaces it, so no difference"), "{said}");
}

#[test]
fn verify_sees_a_checkpoint_that_was_merged_otherwise() {
    let mut model = Model::new();
    let base = model.base(PLAIN);
    let (tuned, ..) = model.tuned("tuned.safetensors", PLAIN);
    let out = model.bench.merge(&base, &[&tuned], "-w 0.3");
    let verify = |weight: &str| {
        let mut command = crate::common::lora_tool();
        command.arg("verify").arg(&out).arg("--base").arg(&base).arg("--adapter").arg(&tuned);
        command.args(["-w", weight]).output().expect("it runs").status.code()
    };
    assert_eq!(verify("0.3"), Some(0));
    assert_eq!(verify("0.31"), Some(1));
}
