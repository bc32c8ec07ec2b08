//! An extraction with both checkpoints open, and what its adapter says beside its modules.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::options::Options;
use super::pair::{Form, Pair};
use crate::adapter::convention::Convention;
use crate::adapter::module::Kind;
use crate::adapter::save::{Sized, file_size};
use crate::error::Result;
use crate::format::json::model_config;
use crate::format::location;
use crate::format::{Checkpoint, Dtype, Metadata};
use crate::ops::write;
use crate::weight::tied;

/// What will be looked at.
#[derive(Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// The rank policy.
    pub rank: String,
    /// The convention to be written.
    pub convention: String,
    /// The output.
    pub output: PathBuf,
    /// The tensors of both checkpoints.
    pub pairs: Vec<Pair>,
}

/// A plan with its inputs open.
#[derive(Debug)]
pub struct Extract {
    /// What will be looked at.
    pub plan: Plan,
    pub(super) base: Checkpoint,
    pub(super) tuned: Checkpoint,
    /// The convention that modules are computed in, and the one that is written.
    pub(super) convention: &'static Convention,
    pub(super) target: &'static Convention,
    pub(super) dtype: Dtype,
    pub(super) options: Options,
}

impl Extract {
    pub(super) fn destination(&self) -> write::Destination<'_> {
        write::Destination {
            native: self.convention,
            target: self.target,
            program: None,
            reference: Some(&self.options.base),
            output: &self.options.output,
            beside: self.base.shards.first().map_or(&self.base.path, |shard| &shard.path),
            force: self.options.force,
        }
    }

    /// All weight files that are read.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let shards = self.base.shards.iter().chain(&self.tuned.shards);
        shards.map(|shard| shard.path.clone()).collect()
    }

    pub(super) fn file_size(&self, modules: &[Sized<'_>], ranks: &[usize]) -> Result<u64> {
        file_size(self.convention, modules, ranks, &[], self.dtype, &self.metadata())
    }

    pub(super) fn metadata(&self) -> Metadata {
        let name =
            |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let made = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "extracted": { "base": name(&self.options.base), "tuned": name(&self.options.tuned) },
            "rank": self.plan.rank,
        });
        Metadata::from_iter([
            ("format".to_owned(), "pt".to_owned()),
            ("lora_tool".to_owned(), made.to_string()),
        ])
    }

    /// Whether an adapter that changes these modules changes an embedding that both checkpoints tie to their output head, which it has
    /// to change too.
    ///
    /// # Errors
    /// If there is a config that cannot be read.
    pub(super) fn ties_embeddings(&self, changes: impl Fn(&str) -> bool) -> Result<bool> {
        let Some(tied) = tied::find(&self.base)? else { return Ok(false) };
        let pairs = self.plan.pairs.iter().filter(|pair| pair.base == tied.embedding);
        let modules: Vec<&str> = pairs.map(|pair| pair.module.as_str()).collect();
        // A head that has parted is a second difference from the one embedding.
        let [module] = modules.as_slice() else { return Ok(false) };
        Ok(changes(module))
    }

    /// The fields of a PEFT config that do not follow from the modules.
    pub(super) fn config(&self, ties: bool) -> Result<Map<String, Value>> {
        let turned = self.plan.pairs.iter().any(|pair| {
            let linear = Kind::Linear;
            pair.form == Form::Factors { kind: linear, turned: true }
        });
        let base = location::called(&self.options.base);
        let config = json!({
            "peft_type": "LORA", "base_model_name_or_path": base, "task_type": task(&self.base)?,
            "bias": "none", "fan_in_fan_out": turned, "lora_dropout": 0.0, "inference_mode": true,
        });
        let mut config = if let Value::Object(config) = config { config } else { Map::new() };
        if ties {
            config.insert("ensure_weight_tying".to_owned(), Value::Bool(true));
        }
        Ok(config)
    }
}

/// PEFT's name for what the base's architecture is for, where its config says it.
///
/// # Errors
/// If there is a config that cannot be read.
pub(in crate::ops) fn task(base: &Checkpoint) -> Result<Option<&'static str>> {
    const TASKS: [(&str, &str); 4] = [
        ("ForCausalLM", "CAUSAL_LM"),
        ("ForConditionalGeneration", "SEQ_2_SEQ_LM"),
        ("ForSequenceClassification", "SEQ_CLS"),
        ("ForTokenClassification", "TOKEN_CLS"),
    ];
    let Some(directory) = base.directory() else { return Ok(None) };
    let config = model_config(directory)?;
    let architectures = config.as_ref().and_then(|config| config.get("architectures"));
    let name = architectures.and_then(|names| names.get(0)?.as_str()).unwrap_or_default();
    let known = TASKS.iter().find(|(ending, _)| name.ends_with(ending));
    Ok(known.map(|(_, task)| *task))
}
