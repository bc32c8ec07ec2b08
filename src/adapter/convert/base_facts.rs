//! What a conversion has to know of the base, from its config and its tensors' shapes.

use std::path::Path;

use serde_json::Value;

use crate::adapter::convention::gguf_names::{Architecture, Heads};
use crate::adapter::convention::mlx_classes::{Stacks, stacks_of};
use crate::adapter::stacks::ExpertSizes;
use crate::error::Result;
use crate::format::json::{expert_count, model_config};
use crate::format::{Access, Checkpoint};
use crate::weight::{root, tied};

/// What a reference says.
#[derive(Debug, Clone, Default)]
pub(crate) struct BaseFacts {
    /// The class of the model, by its config.
    pub(super) class: Option<String>,
    /// Its `model_type`.
    pub(super) model_type: Option<String>,
    pub(super) architecture: Option<&'static Architecture>,
    /// Where mlx-lm's class has its experts.
    pub(super) stacks: Option<Stacks>,
    pub(crate) heads: Option<Heads>,
    pub(crate) experts: Option<ExpertSizes>,
    pub(super) expert_count: Option<usize>,
    /// Whether its language model is one of several in it.
    pub(super) wraps: bool,
    /// Whether its output head is its input embedding.
    pub(super) tied: bool,
}

impl BaseFacts {
    /// What the reference says; nothing without one.
    ///
    /// # Errors
    /// A config that cannot be read.
    pub(crate) fn of(reference: Option<&Path>, access: Access) -> Result<Self> {
        let Some(path) = reference else { return Ok(Self::default()) };
        // A config alone tells names and heads.
        let tensors = Checkpoint::open(path, access).ok();
        let experts = tensors.as_ref().and_then(ExpertSizes::of);
        let facts = of_config(path)?;
        let tied = match &tensors {
            Some(tensors) => tied::find(tensors)?.is_some(),
            None => facts.tied,
        };
        Ok(Self { experts, tied, ..facts })
    }
}

/// What the config of the model at `path`, or beside it, says.
fn of_config(path: &Path) -> Result<BaseFacts> {
    let directory = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let Some(document) = model_config(directory)? else { return Ok(BaseFacts::default()) };
    let text = document.get("text_config").and_then(Value::as_object);
    let heads = Heads::of_config(&document);
    // A wrapper that llama.cpp does not know is the language model in it.
    let named = [Some(&document), text].into_iter().flatten();
    let architecture = named
        .filter_map(|config| config.get("model_type")?.as_str())
        .find_map(Architecture::of_model_type);
    let listed = document.get("architectures").and_then(Value::as_array);
    let class = listed.and_then(|list| list.first()).and_then(Value::as_str);
    let class = class.map(str::to_owned);
    let model_type = document.get("model_type").and_then(Value::as_str).map(str::to_owned);
    Ok(BaseFacts {
        class,
        stacks: model_type.as_deref().and_then(stacks_of),
        model_type,
        architecture,
        heads,
        experts: None,
        expert_count: expert_count(&document),
        wraps: root::wraps(&document),
        tied: [Some(&document), text]
            .into_iter()
            .flatten()
            .any(|config| config.get("tie_word_embeddings").and_then(Value::as_bool) == Some(true)),
    })
}
