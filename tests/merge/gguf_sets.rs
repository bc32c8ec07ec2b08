//! GGUF models of several files, in and out; and `verify`, `--verify`, `--receipt` and `undo` of GGUF files.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lora_tool::format::gguf::container::{Pairs, SPLIT};
use lora_tool::format::{Access, Checkpoint};

use super::gguf_out::{adapter, base, merge, open};
use crate::common::{Bench, lora_tool};

const CHANGED: &str = "blk.0.attn_q.weight";

/// What a command says, and its exit code.
fn run(words: &[&str], paths: &[&Path]) -> (Option<i32>, String) {
    let mut paths = paths.iter();
    let mut command = lora_tool();
    for word in words {
        match *word {
            "_" => command.arg(paths.next().expect("a path")),
            word => command.arg(word),
        };
    }
    let done = command.output().expect("it runs");
    let said = [done.stderr, done.stdout].concat();
    (done.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// The files of a directory by name, or the one file.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    if path.is_file() {
        return BTreeMap::from([(String::new(), std::fs::read(path).expect("read"))]);
    }
    let entries = std::fs::read_dir(path).expect("a directory").map(|entry| entry.expect("one"));
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().expect("UTF-8");
            (name, std::fs::read(entry.path()).expect("read"))
        })
        .collect()
}

/// The base split into files of at most 2 kB, by a merge that changes nothing to speak of.
fn split(bench: &Bench, adapter: &Path) -> PathBuf {
    let (code, said, out) =
        merge(bench, adapter, "set", "--types keep --max-shard-size 2kB --no-provenance");
    assert_eq!(code, Some(0), "{said}");
    out
}

fn bytes(checkpoint: &Checkpoint, name: &str) -> Vec<u8> {
    checkpoint.tensor(name).expect("a tensor").all(&mut Vec::new()).expect("read").to_vec()
}

#[test]
fn a_set_says_of_each_file_which_it_is() {
    let bench = Bench::new();
    let adapter = adapter(&bench, 5.0);
    let set = split(&bench, &adapter);
    let before = open(&base());
    let after = open(&set);
    let count = after.shards.len();
    assert!(count > 2, "{count}");
    assert_eq!(before.names().collect::<Vec<_>>(), after.names().collect::<Vec<_>>());
    for name in before.names().filter(|name| *name != CHANGED) {
        assert!(bytes(&before, name) == bytes(&after, name), "{name}");
    }
    for (number, shard) in after.shards.iter().enumerate() {
        assert_eq!(shard.relative, format!("model-{:05}-of-{count:05}.gguf", number + 1));
        let pairs = Pairs::read(&shard.source).expect("pairs");
        let keys: Vec<&str> = pairs.entries().map(|(key, _)| key).collect();
        let own = keys.iter().filter(|key| !key.starts_with(SPLIT)).count();
        assert_eq!(own > 0, number == 0, "{keys:?}");
        let metadata = shard.header.metadata.as_ref().expect("metadata");
        assert_eq!(metadata["split.no"], number.to_string());
        assert_eq!(metadata["split.count"], count.to_string());
        assert_eq!(metadata["split.tensors.count"], before.len().to_string());
        let fits = shard.header.tensors.len() == 1
            || shard.source.length() - shard.header.data_start <= 2000;
        assert!(fits, "{}", shard.relative);
    }
    // Any of them names the model.
    let any = open(&set.join(&after.shards[1].relative));
    assert_eq!(any.len(), before.len());
}

#[test]
fn a_set_becomes_a_set_of_the_same_files_or_one_file() {
    let bench = Bench::new();
    let adapter = adapter(&bench, 5.0);
    let set = split(&bench, &adapter);
    let changed = open(&set).tensor(CHANGED).expect("a tensor").shard.relative.clone();
    let (again, whole) = (bench.path("again"), bench.path("whole.gguf"));
    let keep = ["--types", "keep", "--min-survival", "0", "--no-provenance"];
    let words = [&["merge", "_", "_", "-o", "_"][..], &keep].concat();
    let (code, said) = run(&words, &[&set, &adapter, &again]);
    assert_eq!(code, Some(0), "{said}");
    let (before, after) = (files(&set), files(&again));
    assert!(before.keys().eq(after.keys()));
    for (name, bytes) in &before {
        assert_eq!(*bytes == after[name], *name != changed, "{name}");
    }
    let (code, said) = run(&words, &[&set, &adapter, &whole]);
    assert_eq!(code, Some(0), "{said}");
    // As of the base in one file, merged twice.
    let (_, _, once) = merge(&bench, &adapter, "once.gguf", "--types keep --no-provenance");
    let twice = bench.path("twice.gguf");
    let (code, said) = run(&words, &[&once, &adapter, &twice]);
    assert_eq!(code, Some(0), "{said}");
    assert!(files(&whole) == files(&twice));
}

#[test]
fn a_set_that_is_not_whole_is_no_model() {
    let bench = Bench::new();
    let adapter = adapter(&bench, 5.0);
    let set = split(&bench, &adapter);
    let names: Vec<String> = files(&set).into_keys().collect();
    let (first, second) = (set.join(&names[0]), set.join(&names[1]));
    let said = |path: &Path| Checkpoint::open(path, Access::Map).expect_err("refused").to_string();
    let alone = bench.path("alone.gguf");
    std::fs::copy(&second, &alone).expect("copied");
    let text = said(&alone);
    assert!(text.contains("file 2 of a set of"), "{text}");
    let kept = std::fs::read(&second).expect("read");
    std::fs::copy(&first, &second).expect("copied");
    assert!(said(&set).contains("file 1 of a set of"), "{}", said(&set));
    std::fs::remove_file(&second).expect("removed");
    assert!(said(&set).contains(&names[1]), "{}", said(&set));
    std::fs::write(&second, kept).expect("written");
    std::fs::write(set.join("mmproj.gguf"), b"GGUF").expect("written");
    assert!(said(&set).contains("several unrelated files"), "{}", said(&set));
}

#[test]
fn verify_knows_what_a_gguf_result_should_be() {
    let bench = Bench::new();
    let adapter = adapter(&bench, 0.5);
    for (out, options) in [
        ("out.gguf", "--verify"),
        ("out.gguf", "--types q8_0 --verify"),
        ("out.gguf", "--types bf16 --verify"),
        ("set", "--types keep --min-survival 0 --max-shard-size 2kB --verify"),
        ("dense.safetensors", "--verify"),
    ] {
        let (code, said, out) = merge(&bench, &adapter, out, options);
        assert_eq!(code, Some(0), "{options}: {said}");
        let mut words = vec!["verify", "_", "--base", "_", "--adapter", "_"];
        let types = options.replace(" --max-shard-size 2kB", "").replace("--verify", "");
        words.extend(types.split_whitespace());
        let (code, said) = run(&words, &[&out, &base(), &adapter]);
        assert_eq!(code, Some(0), "{options}: {said}");
    }
    let (_, _, out) = merge(&bench, &adapter, "out.gguf", "--types q8_0");
    let whole = std::fs::read(&out).expect("read");
    let words = ["verify", "_", "--base", "_", "--adapter", "_", "--types"];
    let judged = |types: &str| run(&[&words[..], &[types]].concat(), &[&out, &base(), &adapter]);
    let (code, said) = judged("q5_1");
    assert!(code == Some(1) && said.contains("it is Q8_0 [") && said.contains("Q5_1 ["), "{said}");
    let opened = open(&out);
    for name in [CHANGED, "blk.0.attn_k.weight"] {
        let view = opened.tensor(name).expect("a tensor");
        let at = (view.shard.header.data_start + view.spec.start) as usize + 7;
        let mut spoiled = whole.clone();
        spoiled[at] ^= 1;
        std::fs::write(&out, spoiled).expect("written");
        let (code, said) = judged("q8_0");
        assert!(code == Some(1) && said.contains(name) && said.contains("byte 7"), "{said}");
    }
    let mut spoiled = whole;
    let place = spoiled.windows(5).position(|five| five == b"llama").expect("the architecture");
    spoiled[place] = b'L';
    std::fs::write(&out, spoiled).expect("written");
    let (code, said) = judged("q8_0");
    assert!(code == Some(1) && said.contains("another pair `general.architecture`"), "{said}");
}

#[test]
fn undo_gives_a_gguf_base_back() {
    let bench = Bench::new();
    let adapter = adapter(&bench, 0.5);
    let set = split(&bench, &adapter);
    let (merged, receipt) = (bench.path("merged"), bench.path("receipt"));
    std::fs::create_dir(&merged).expect("a directory");
    let number = |at: usize, ending: &str| bench.path(&format!("back-{at}{ending}"));
    let cases = [
        (base(), "out.gguf", "", ".gguf"),
        (base(), "out.gguf", "--types q8_0", ".gguf"),
        (base(), "dense.safetensors", "", ".gguf"),
        (base(), "set2", "--types bf16 --max-shard-size 2kB", ".gguf"),
        (set.clone(), "out.gguf", "", ""),
        (set, "again", "--types q8_0", ""),
    ];
    for (at, (base, out, options, ending)) in cases.into_iter().enumerate() {
        let (out, back) = (merged.join(out), number(at, ending));
        let mut words = vec!["merge", "_", "_", "-o", "_", "--receipt", "_", "-f"];
        words.extend(options.split_whitespace());
        let (code, said) = run(&words, &[&base, &adapter, &out, &receipt]);
        assert_eq!(code, Some(0), "{at}: {said}");
        let (code, said) =
            run(&["undo", "_", "--receipt", "_", "-o", "_"], &[&out, &receipt, &back]);
        assert_eq!(code, Some(0), "{at}: {said}");
        assert!(files(&base) == files(&back), "{at}");
    }
    let wrong = bench.path("back.safetensors");
    let out = merged.join("dense.safetensors");
    let words = ["merge", "_", "_", "-o", "_", "--receipt", "_", "-f"];
    run(&words, &[&base(), &adapter, &out, &receipt]);
    let (code, said) = run(&["undo", "_", "--receipt", "_", "-o", "_"], &[&out, &receipt, &wrong]);
    assert!(code == Some(2) && said.contains("the base is a GGUF file"), "{said}");
}
