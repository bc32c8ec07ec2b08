//! Embeddings and other values that replace the base's: `modules_to_save`, trained tokens, tied
//! heads, vocabularies that grow. All numbers are whole, so that every result is exact.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use crate::common::{Bench, Peft, Read, Tensors, read};
use lora_tool::format::Dtype;
use serde_json::{Value, json};

const EMBEDDING: &str = "model.embed_tokens";
const HEAD: &str = "lm_head";
const TABLE: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const TABLE_AND_LORA: [f64; 6] = [2.0, 1.0, 5.0, 2.0, 8.0, 3.0];
const OTHER: [f32; 6] = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0];

/// A tiny language model: an embedding of three entries, a norm, and a head unless it is tied.
struct Model {
    bench: Bench,
    base: PathBuf,
}

/// What a merge made of it.
struct Merged {
    path: PathBuf,
    embedding: Read,
    head: Option<Read>,
    config: Value,
}

impl Model {
    fn new(tied: bool) -> Self {
        let bench = Bench::new();
        let mut file = Tensors::new().f32(&format!("{EMBEDDING}.weight"), &[3, 2], &TABLE).float(
            "model.norm.weight",
            Dtype::BF16,
            &[2],
            &[1.0, 2.0],
        );
        if !tied {
            file = file.f32(&format!("{HEAD}.weight"), &[3, 2], &TABLE);
        }
        let base = bench.path("base");
        file.save(&base.join("model.safetensors"));
        let config = json!({
            "architectures": ["TinyForCausalLM"], "vocab_size": 3, "tie_word_embeddings": tied,
            "text_config": {"vocab_size": 3, "hidden_size": 2},
        });
        std::fs::write(base.join("config.json"), config.to_string()).expect("written");
        Self { bench, base }
    }

    fn adapter(&self, adapter: &Peft) -> PathBuf {
        adapter.save(&self.bench.path("adapter"))
    }

    fn merge(&self, adapter: &Peft, options: &str) -> Merged {
        Merged::open(self.bench.merge(&self.base, &[&self.adapter(adapter)], options))
    }

    fn refuse(&self, adapter: &Peft, options: &str) -> String {
        self.bench.refuse(&self.base, &[&self.adapter(adapter)], options)
    }
}

impl Merged {
    fn open(path: PathBuf) -> Self {
        let mut tensors = read(&path);
        let embedding = tensors.remove(&format!("{EMBEDDING}.weight")).expect("an embedding");
        let head = tensors.remove(&format!("{HEAD}.weight"));
        let config = std::fs::read(path.join("config.json")).expect("a config");
        let config = serde_json::from_slice(&config).expect("JSON");
        Self { path, embedding, head, config }
    }

    fn head(&self) -> Vec<f64> {
        self.head.as_ref().expect("a head").values()
    }

    fn ties(&self) -> bool {
        let tied = self.config["tie_word_embeddings"].as_bool().expect("a flag");
        assert_eq!(tied, self.head.is_none(), "the config says what the file holds");
        tied
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// LoRA on the embedding: it adds what [`TABLE_AND_LORA`] shows.
fn on_embedding(adapter: Peft) -> Peft {
    adapter.tensor(&format!("{EMBEDDING}.lora_embedding_A"), &[1, 3], &[1.0, 2.0, 3.0]).tensor(
        &format!("{EMBEDDING}.lora_embedding_B"),
        &[2, 1],
        &[1.0, -1.0],
    )
}

/// The same on the head.
fn on_head(adapter: Peft) -> Peft {
    adapter.linear(HEAD, 1, &[1.0, -1.0], &[1.0, 2.0, 3.0])
}

fn replacing(adapter: Peft, module: &str, values: &[f32]) -> Peft {
    adapter.tensor(&format!("{module}.weight"), &[values.len() / 2, 2], values)
}

#[test]
fn an_adapter_on_one_side_unties() {
    let model = Model::new(true);
    let merged = model.merge(&on_embedding(Peft::new(1, 1.0)), "");
    assert_eq!(merged.embedding.values(), TABLE_AND_LORA);
    assert_eq!(merged.head(), wide(&TABLE));
    assert!(!merged.ties());
    let merged = model.merge(&on_head(Peft::new(1, 1.0)), "");
    assert_eq!(merged.embedding.values(), wide(&TABLE));
    assert_eq!(merged.head(), TABLE_AND_LORA);
    assert!(!merged.ties());
    // What the config says beside it stays, and stays in its order.
    let keys: Vec<_> = merged.config.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["architectures", "vocab_size", "tie_word_embeddings", "text_config"]);
    // Both sides, differently: each gets its own.
    let both = on_head(on_embedding(Peft::new(1, 1.0)));
    let merged = model.merge(&both, "--module-weight lm_head=-1");
    assert_eq!(merged.embedding.values(), TABLE_AND_LORA);
    assert_eq!(merged.head(), [0.0, 3.0, 1.0, 6.0, 2.0, 9.0]);
    assert!(!merged.ties());
}

#[test]
fn an_untied_result_is_whole_with_shards_and_without_side_files() {
    let model = Model::new(true);
    let adapter = model.adapter(&on_embedding(Peft::new(1, 1.0)));
    let out = model.bench.merge(&model.base, &[&adapter], "--max-shard-size 24");
    let index = std::fs::read(out.join("model.safetensors.index.json")).expect("an index");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    assert_eq!(index["weight_map"].as_object().expect("a map").len(), 3);
    assert_eq!(index["metadata"]["total_size"], 24 + 24 + 4);
    assert_eq!(Merged::open(out).head(), wide(&TABLE));
    let file = model.bench.path("merged.safetensors");
    model.bench.merge(&model.base, &[&adapter], &format!("-o {}", file.display()));
    let merged = read(&file);
    assert_eq!(merged["lm_head.weight"].values(), wide(&TABLE));
    assert_eq!(merged["model.embed_tokens.weight"].values(), TABLE_AND_LORA);
    // Judged by the same plan.
    for merged in [&out_of(&model, &adapter), &file] {
        let mut verify = crate::common::lora_tool();
        verify.arg("verify").arg(merged).arg("--base").arg(&model.base);
        verify.arg("--adapter").arg(&adapter).assert().success();
    }
}

fn out_of(model: &Model, adapter: &Path) -> PathBuf {
    model.bench.merge(&model.base, &[adapter], "")
}

#[test]
fn ties_are_kept_where_both_sides_change_alike_or_on_demand() {
    let model = Model::new(true);
    let config = std::fs::read(model.base.join("config.json")).expect("a config");
    let same = replacing(replacing(Peft::new(1, 1.0), EMBEDDING, &OTHER), HEAD, &OTHER);
    let tokens = Peft::new(1, 1.0).field("trainable_token_indices", json!([2])).tensor(
        &format!("{EMBEDDING}.token_adapter.trainable_tokens_delta"),
        &[1, 2],
        &[0.0, 7.0],
    );
    let cases = [
        (on_embedding(Peft::new(1, 1.0)), "--keep-tied", TABLE_AND_LORA.to_vec()),
        (
            on_embedding(Peft::new(1, 1.0)).field("ensure_weight_tying", true),
            "",
            TABLE_AND_LORA.to_vec(),
        ),
        (same, "", wide(&OTHER)),
        (tokens, "", vec![1.0, 2.0, 3.0, 4.0, 0.0, 7.0]),
    ];
    for (adapter, options, expected) in cases {
        let merged = model.merge(&adapter, options);
        assert_eq!(merged.embedding.values(), expected);
        assert!(merged.ties());
        let after = std::fs::read(merged.path.join("config.json")).expect("a config");
        assert_eq!(after, config, "an untouched config keeps its bytes");
    }
    let said = model.refuse(&on_head(Peft::new(1, 1.0)), "--keep-tied");
    assert!(said.contains(HEAD) && said.contains("tied"), "{said}");
    // Replaced by different values on each side: no longer one matrix.
    let different = replacing(replacing(Peft::new(1, 1.0), EMBEDDING, &OTHER), HEAD, &TABLE);
    let merged = model.merge(&different, "");
    assert_eq!((merged.embedding.values(), merged.head()), (wide(&OTHER), wide(&TABLE)));
    assert!(!merged.ties());
}

#[test]
fn saved_modules_take_the_place_of_the_bases() {
    let model = Model::new(false);
    let adapter = replacing(Peft::new(1, 1.0), HEAD, &OTHER)
        .tensor("model.norm.modules_to_save.default.weight", &[2], &[3.0, 1.0])
        .tensor("model.norm.original_module.weight", &[2], &[1.0, 2.0]);
    let merged = model.merge(&adapter, "");
    assert_eq!(merged.embedding.values(), wide(&TABLE));
    assert_eq!(merged.head(), wide(&OTHER));
    let norm = &read(&merged.path)["model.norm.weight"];
    assert_eq!((norm.dtype, norm.values()), (Dtype::BF16, vec![3.0, 1.0]));
    let merged = model.merge(&adapter, "-w 0.5");
    assert_eq!(merged.head(), [5.0, 5.0, 5.0, 5.0, 5.0, 5.0]);
    assert_eq!(read(&merged.path)["model.norm.weight"].values(), [2.0, 1.5]);
}

#[test]
fn adapters_that_replace_one_tensor_must_agree() {
    let model = Model::new(false);
    let save = |name: &str, values: &[f32]| {
        replacing(Peft::new(1, 1.0), HEAD, values).save(&model.bench.path(name))
    };
    let (first, same, different) =
        (save("first", &OTHER), save("same", &OTHER), save("different", &TABLE));
    let merged = Merged::open(model.bench.merge(&model.base, &[&first, &same], ""));
    assert_eq!(merged.head(), wide(&OTHER));
    for (second, options) in [(&different, ""), (&same, "-w 1 0.5")] {
        let said = model.bench.refuse(&model.base, &[&first, second], options);
        assert!(said.contains("different values"), "{said}");
    }
}

#[test]
fn trained_tokens_are_rows_of_their_own() {
    let model = Model::new(false);
    let rows = [0.0, 9.0, 10.0, 10.0];
    let key = |module: &str| format!("{module}.token_adapter.trainable_tokens_delta");
    let list = Peft::new(1, 1.0).field("trainable_token_indices", json!([2, 0])).tensor(
        &key(EMBEDDING),
        &[2, 2],
        &rows,
    );
    let named = Peft::new(1, 1.0)
        .field("trainable_token_indices", json!({"embed_tokens": [2, 0], "lm_head": [1]}))
        .tensor(&key(EMBEDDING), &[2, 2], &rows)
        .tensor(&key(HEAD), &[1, 2], &[-1.0, -2.0]);
    let expected = [10.0, 10.0, 3.0, 4.0, 0.0, 9.0];
    let merged = model.merge(&list, "");
    assert_eq!((merged.embedding.values(), merged.head()), (expected.to_vec(), wide(&TABLE)));
    let merged = model.merge(&named, "");
    assert_eq!(merged.embedding.values(), expected);
    assert_eq!(merged.head(), [1.0, 2.0, -1.0, -2.0, 5.0, 6.0]);
    let halfway = model.merge(&list, "-w 0.5").embedding.values();
    assert_eq!(halfway, [5.5, 6.0, 3.0, 4.0, 2.5, 7.5]);
    let outside = list.clone().field("trainable_token_indices", json!([2, 3]));
    let miscounted = list.field("trainable_token_indices", json!([2]));
    for adapter in [outside, miscounted] {
        model.refuse(&adapter, "");
    }
}

#[test]
fn a_grown_vocabulary_is_written_with_its_size() {
    let grown: Vec<f32> = (0u8..10).map(f32::from).collect();
    let both = replacing(replacing(Peft::new(1, 1.0), EMBEDDING, &grown), HEAD, &grown);
    let merged = Model::new(false).merge(&both, "");
    assert_eq!((merged.embedding.values(), merged.head()), (wide(&grown), wide(&grown)));
    assert_eq!(merged.embedding.shape, [5, 2]);
    let alone = replacing(Peft::new(1, 1.0), EMBEDDING, &grown);
    let tied = Model::new(true).merge(&alone, "");
    assert!(tied.ties());
    assert_eq!(tied.embedding.values(), wide(&grown));
    for config in [&merged.config, &tied.config] {
        assert_eq!(
            (&config["vocab_size"], &config["text_config"]["vocab_size"]),
            (&json!(5), &json!(5))
        );
    }
    // One side alone makes a model that does not load, of which there is a warning.
    let (model, adapter) = (Model::new(false), alone);
    let (_, done) = model.bench.run(&model.base, &[&model.adapter(&adapter)], "");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("warning:") && said.contains("`lm_head.weight` has 3 rows"), "{said}");
    // Rows that are not there cannot be moved halfway, and a norm does not grow.
    Model::new(false).refuse(&both, "-w 0.5");
    let norm = Peft::new(1, 1.0).tensor("model.norm.weight", &[3], &[1.0; 3]);
    Model::new(false).refuse(&norm, "");
}

/// A head that only its twin is stored of is found beside modules that are parts of stacks, whose names
/// take a look at the whole base.
#[test]
fn a_tied_head_is_found_beside_experts() {
    let bench = Bench::new();
    let stack = "model.layers.0.mlp.experts";
    let base = Tensors::new()
        .f32(&format!("{EMBEDDING}.weight"), &[3, 2], &TABLE)
        .f32(&format!("{stack}.gate_up_proj"), &[2, 8, 2], &[1.0; 32])
        .f32(&format!("{stack}.down_proj"), &[2, 2, 4], &[1.0; 16]);
    let directory = bench.path("base");
    base.save(&directory.join("model.safetensors"));
    let config = json!({"architectures": ["TinyForCausalLM"], "tie_word_embeddings": true});
    std::fs::write(directory.join("config.json"), config.to_string()).expect("written");
    let adapter = Peft::new(1, 1.0)
        .linear(HEAD, 1, &[1.0, 0.0], &[1.0, 2.0, 3.0])
        .linear(&format!("{stack}.1.down_proj"), 1, &[1.0, 0.0, 0.0, 2.0], &[0.0, 3.0])
        .save(&bench.path("adapter"));
    let merged = read(&bench.merge(&directory, &[&adapter], "--verify"));
    assert_eq!(merged[&format!("{EMBEDDING}.weight")].values(), TABLE.map(f64::from));
    assert_eq!(merged[&format!("{HEAD}.weight")].values(), [2.0, 2.0, 5.0, 4.0, 8.0, 6.0]);
    let mut down = vec![1.0; 16];
    (down[12], down[15]) = (4.0, 7.0);
    assert_eq!(merged[&format!("{stack}.down_proj")].values(), down);
}
