//! A GGUF base whose result is transformers' checkpoint, and the other way round: the fixture is what llama.cpp's own
//! converter made of `llama/base` (`scripts/interop/gguf_recast.py`).
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::path::{Path, PathBuf};

use lora_tool::format::{Access, Checkpoint};

use crate::common::{Bench, Tensors, fixture, lora_tool, read};

/// A merge of a fixture with `llama/style`; its exit code and what it says.
fn merge(base: &Path, out: &Path, options: &[&str]) -> (Option<i32>, String) {
    let mut command = lora_tool();
    command.arg("merge").arg(base).arg(fixture("llama/style")).arg("-o").arg(out).args(options);
    let done = command.output().expect("it runs");
    let said = [done.stderr, done.stdout].concat();
    (done.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn merged(bench: &Bench, base: &str, out: &str, options: &[&str]) -> PathBuf {
    let out = bench.path(out);
    let (code, said) = merge(&fixture(base), &out, options);
    assert_eq!(code, Some(0), "{said}");
    out
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_gguf_base_becomes_the_checkpoint_that_it_was_converted_from() {
    let bench = Bench::new();
    let hub = text(&fixture("llama/base"));
    let found = merged(&bench, "llama/base.gguf", "found", &["--reference", &hub, "--verify"]);
    let expected = merged(&bench, "llama/base", "expected", &[]);
    assert_eq!(read(&found), read(&expected));
    for name in ["config.json", "model.safetensors.index.json"] {
        let bytes = |directory: &Path| std::fs::read(directory.join(name)).expect("a file");
        assert!(bytes(&found) == bytes(&expected), "{name}");
    }
}

#[test]
fn a_checkpoint_becomes_the_gguf_model_that_it_is_converted_to() {
    let bench = Bench::new();
    let sibling = text(&fixture("llama/base.gguf"));
    let with = ["--reference", sibling.as_str(), "--no-provenance"];
    let found = merged(&bench, "llama/base", "found.gguf", &with);
    // The two merges find rows, names and numbers on different ways.
    let expected = merged(&bench, "llama/base.gguf", "expected.gguf", &["--no-provenance"]);
    let bytes = |path: &Path| std::fs::read(path).expect("read");
    assert!(bytes(&found) == bytes(&expected));
    let types = |threads: &str| {
        let options = ["-f", "--types", "q8_0", "--threads", threads, "--verify"];
        let out = merged(&bench, "llama/base", "q8_0.gguf", &[&with[..], &options].concat());
        bytes(&out)
    };
    let whole = types("1");
    assert!(whole == types("2") && whole == types("8"));
    let opened = Checkpoint::open(&bench.path("q8_0.gguf"), Access::Map).expect("opens");
    for shard in &opened.shards {
        for spec in &shard.header.tensors {
            let blocks = shard.header.blocks.contains_key(&spec.name);
            assert_eq!(blocks, !spec.name.contains("norm"), "{}", spec.name);
        }
    }
    let set = merged(&bench, "llama/base", "set", &[&with[..], &["--types", "q8_0"]].concat());
    assert!(bytes(&set.join("base.gguf")) == whole);
}

#[test]
fn another_model_is_no_reference() {
    let bench = Bench::new();
    let (hub, gguf) = (fixture("llama/base"), fixture("llama/base.gguf"));
    let strange = bench.path("strange.safetensors");
    Tensors::new().f32("model.visual.weight", &[2, 2], &[0.0; 4]).save(&strange);
    let wide = bench.path("wide.safetensors");
    Tensors::new().f32("model.norm.weight", &[65], &[0.0; 65]).save(&wide);
    let few = bench.path("few.safetensors");
    Tensors::new().f32("model.norm.weight", &[64], &[0.0; 64]).save(&few);
    let qwen = fixture("quant/gguf_qwen3_mixed/base/model.gguf");
    let receipt = text(&bench.path("receipt"));
    for (base, out, reference, more, says) in [
        (&gguf, "out", &strange, vec![], "`model.visual.weight`: one model cannot be converted"),
        (&gguf, "out", &wide, vec![], "it is [65], and `output_norm.weight` [64]"),
        (&gguf, "out", &few, vec![], "has no tensor for it"),
        (&hub, "out.gguf", &qwen, vec![], "one model cannot be converted"),
        (&hub, "out.gguf", &few, vec![], "of a GGUF file of the same base"),
        (&gguf, "out", &gguf, vec![], "the names of a checkpoint of transformers'"),
        (&gguf, "out.gguf", &hub, vec![], "--reference does nothing here"),
        (&hub, "out", &hub, vec![], "--reference does nothing here"),
        (&gguf, "out", &hub, vec!["--receipt", &receipt], "leave out --receipt"),
        (&gguf, "out", &hub, vec!["--quantized", "refuse"], "leave out --quantized"),
    ] {
        let (out, reference) = (bench.path(out), text(reference));
        let options = [&["--reference", &reference], &more[..]].concat();
        let (code, said) = merge(base, &out, &options);
        assert!(code == Some(2) && said.contains(says), "{options:?}: {said}");
        assert!(!out.exists());
    }
}
