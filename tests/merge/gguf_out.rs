//! Merges of a GGUF base into a GGUF file: what nothing touches keeps its bytes, what changes has the type that was asked
//! for.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::path::{Path, PathBuf};

use lora_tool::format::{Access, Checkpoint};
use lora_tool::weight::{self, Weights};

use crate::common::{Bench, Peft, fixture, lora_tool, read};

const CASE: &str = "quant/gguf_llama_q8q4";
/// A matrix in Q8_0 or Q4_0 by its name, rows, columns.
const Q: &str = "model.layers.0.self_attn.q_proj";
const DOWN: &str = "model.layers.0.mlp.down_proj";

pub(super) fn base() -> PathBuf {
    let directory = fixture(CASE).join("base");
    let mut entries = std::fs::read_dir(directory).expect("a case");
    entries.next().expect("a file").expect("an entry").path()
}

/// ggml's name of the type of a tensor, and its bytes.
pub(super) fn stored(checkpoint: &Checkpoint, name: &str) -> (String, Vec<u8>) {
    let weights = Weights::of(checkpoint).expect("weights");
    let detail = weights.get(name).expect("a weight").detail.clone();
    let view = checkpoint.tensor(name).expect("a tensor");
    (detail, view.all(&mut Vec::new()).expect("read").to_vec())
}

pub(super) fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, Access::Map).expect("opens")
}

/// An adapter of one module that adds `size` times a ramp.
pub(super) fn adapter(bench: &Bench, size: f32) -> PathBuf {
    let old = weight::open(&base(), Access::Map).expect("opens");
    let shape = old.tensor("blk.0.attn_q.weight").expect("a tensor").spec.shape.clone();
    let up: Vec<f32> = (0..shape[0]).map(|row| size * (row % 7) as f32 - size).collect();
    let down: Vec<f32> = (0..shape[1]).map(|column| (column % 5) as f32 - 2.0).collect();
    Peft::new(1, 1.0).linear(Q, 1, &down, &up).save(&bench.path("adapter"))
}

pub(super) fn merge(
    bench: &Bench,
    adapter: &Path,
    out: &str,
    options: &str,
) -> (Option<i32>, String, PathBuf) {
    let out = bench.path(out);
    let done = lora_tool()
        .arg("merge")
        .args([&base(), &adapter.to_owned()])
        .arg("-o")
        .arg(&out)
        .arg("-f")
        .args(options.split_whitespace())
        .output()
        .expect("it runs");
    let said =
        String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    (done.status.code(), said, out)
}

#[test]
fn untouched_tensors_and_pairs_keep_their_bytes() {
    let bench = Bench::new();
    let adapter = adapter(&bench, 0.5);
    let before = open(&base());
    for (options, expected) in [("--types q8_0", "Q8_0"), ("--types q5_1", "Q5_1"), ("", "")] {
        let (code, said, out) = merge(&bench, &adapter, "out.gguf", options);
        assert_eq!(code, Some(0), "{options}: {said}");
        let after = open(&out);
        assert_eq!(before.names().collect::<Vec<_>>(), after.names().collect::<Vec<_>>());
        for name in before.names().filter(|name| *name != "blk.0.attn_q.weight") {
            let all = |checkpoint: &Checkpoint| {
                let view = checkpoint.tensor(name).expect("a tensor");
                (view.spec.shape.clone(), view.all(&mut Vec::new()).expect("read").to_vec())
            };
            assert!(all(&before) == all(&after), "{options}: {name}");
        }
        let pairs = |checkpoint: &Checkpoint| {
            let mut pairs = checkpoint.shards[0].header.metadata.clone().unwrap_or_default();
            pairs.shift_remove("lora_tool");
            pairs
        };
        assert_eq!(pairs(&before), pairs(&after), "{options}");
        let (kind, _) = stored(&after, "blk.0.attn_q.weight");
        assert!(expected.is_empty() || kind == expected, "{options}: {kind}");
    }
}

#[test]
fn what_changes_is_the_dense_merge_rounded_to_its_type() {
    let bench = Bench::new();
    let adapter = adapter(&bench, 0.02);
    let dense = bench.merge(&base(), &[&adapter], "--dtype f32");
    let dense = read(&dense)["blk.0.attn_q.weight"].values();
    let largest = dense.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    for (types, step) in [
        ("q4_0", 8.0),
        ("q4_1", 7.5),
        ("q5_0", 16.0),
        ("q5_1", 15.5),
        ("q8_0", 127.0),
        ("bf16", 256.0),
        ("f32", 1e6),
    ] {
        let options = format!("--types {types} --min-survival 0");
        let (code, said, out) = merge(&bench, &adapter, "out.gguf", &options);
        assert_eq!(code, Some(0), "{types}: {said}");
        let read = weight::open(&out, Access::Map).expect("opens");
        let view = read.tensor("blk.0.attn_q.weight").expect("a tensor");
        let bytes = view.all(&mut Vec::new()).expect("decodes").to_vec();
        let found: Vec<f64> = match types {
            "bf16" => {
                let pairs = bytes.chunks_exact(2);
                pairs
                    .map(|two| {
                        f64::from(f32::from_bits(
                            u32::from(u16::from_le_bytes([two[0], two[1]])) << 16,
                        ))
                    })
                    .collect()
            }
            _ => bytes
                .chunks_exact(4)
                .map(|four| f64::from(f32::from_le_bytes(four.try_into().expect("four"))))
                .collect(),
        };
        let error = found.iter().zip(&dense).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(error <= largest / step * 1.01, "{types}: {error} of {largest}");
        assert!(error > 0.0 || types == "f32", "{types} rounds nothing");
    }
}

#[test]
fn a_type_rises_until_enough_survives() {
    let bench = Bench::new();
    let kind = |size: f32, options: &str| {
        let adapter = adapter(&bench, size);
        let (code, said, out) = merge(&bench, &adapter, "out.gguf", options);
        assert_eq!(code, Some(0), "{size} {options}: {said}");
        stored(&open(&out), "blk.0.attn_q.weight").0
    };
    let own = stored(&open(&base()), "blk.0.attn_q.weight").0;
    assert_eq!(kind(5.0, ""), own, "a loud update fits its own type");
    let quiet = kind(2e-5, "--min-survival 0.99");
    assert_ne!(quiet, own, "a quiet update needs a larger one");
    let adapter = adapter(&bench, 2e-5);
    let (code, said, out) = merge(&bench, &adapter, "kept.gguf", "--types keep");
    assert!(code == Some(2) && said.contains("blk.0.attn_q.weight"), "{said}");
    assert!(!out.exists());
}

#[test]
fn threads_do_not_change_a_byte() {
    let bench = Bench::new();
    let adapter = adapter(&bench, 0.5);
    let bytes = |threads: usize| {
        let options = format!("--threads {threads} --rounding stochastic --rounding-seed 4");
        let (code, said, out) = merge(&bench, &adapter, "out.gguf", &options);
        assert_eq!(code, Some(0), "{said}");
        std::fs::read(out).expect("read")
    };
    let one = bytes(1);
    assert!(one == bytes(2) && one == bytes(8));
}

#[test]
fn what_cannot_be_is_refused() {
    let bench = Bench::new();
    let down = Peft::new(1, 1.0).linear(DOWN, 1, &[1.0; 8], &[1.0; 8]).save(&bench.path("other"));
    let style = fixture("llama/style");
    let llama = fixture("llama/base");
    let run = |words: &[&str]| {
        let done = lora_tool().args(words).output().expect("it runs");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let out = bench.path("out.gguf");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (out_text, base_text) = (text(&out), text(&base()));
    let good = text(&adapter(&bench, 0.5));
    let dense = text(&bench.path("out.safetensors"));
    let part = text(&bench.path("out-00001-of-00002.gguf"));
    for (words, expected) in [
        (vec!["merge", &text(&llama), &text(&style), "-o", &out_text], "only a base in GGUF"),
        (vec!["merge", &base_text, &good, "-o", &dense, "--types", "q8_0"], "-o OUT.gguf"),
        (vec!["merge", &base_text, &good, "-o", &out_text, "--max-shard-size", "1MB"], "directory"),
        (vec!["merge", &base_text, &good, "-o", &part], "one of a set of 2"),
        (vec!["merge", &base_text, &good, "-o", &out_text, "--types", "q9"], "q9"),
        (vec!["merge", &base_text, &good, "-o", &out_text, "--dtype", "f16"], "--types"),
        (vec!["merge", &base_text, &good, "-o", &out_text, "--quantized", "hybrid"], "--types"),
        (
            vec!["merge", &base_text, &good, "-o", &out_text, "--quantized", "refuse"],
            "blk.0.attn_q",
        ),
        (vec!["merge", &base_text, &text(&down), "-o", &out_text], "down_proj"),
    ] {
        let (code, said) = run(&words);
        assert!(code == Some(2) && said.contains(expected), "{words:?}: {said}");
        assert!(!out.exists(), "{words:?}");
    }
}
