//! llama.cpp (`src/llama-adapter.cpp`, `convert_lora_to_gguf.py`), read as of 2026-10: a GGUF file of
//! plain factors, or a PEFT directory that its own converter makes one of.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Experts, Field, Program, Takes, nothing};
use crate::adapter::convention::gguf_names::Architecture;
use crate::ops::check::place::Found;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{
    base_layers, biased, changed_base, config_alpha, decomposed, factorable, incomplete_experts, joined_modules,
    misfits, replaced_norms, stacks, strange_factors, towers, unconverted_class, unfactorable,
    unnamed_class, unnamed_modules, unplaced,
};
use crate::ops::check::subject::{Subject, named, some};

pub(super) static PROGRAM: Program = Program {
    name: "llama.cpp",
    aliases: &["llama-cpp", "llamacpp"],
    version: "2026-10",
    oldest: "2024",
    field: Field::Language,
    reads: &["gguf"],
    converts: &["peft"],
    takes: Takes { experts: Experts::Single, ..Takes::convention(&["gguf"]) },
    older: &[],
    needs: nothing,
    rules: &[RULES, CLASSES],
};

const CONVERTER: &str = "convert_lora_to_gguf.py";
const RUNTIME: &str = "src/llama-adapter.cpp";

static RULES: &[Rule] = &[
    Rule::new(
        "scale",
        Effect::ScaledWrongly,
        "its converter takes lora_alpha for every module, and reads neither use_rslora nor alpha_pattern",
        CONVERTER,
        config_alpha,
    )
    .converts(),
    Rule::new(
        "stacked-experts",
        Effect::Refused,
        "its converter does not read PEFT's stacks of experts",
        CONVERTER,
        stacks,
    )
    .converts(),
    Rule::new(
        "all-experts",
        Effect::Refused,
        "its converter wants factors of all three matrices of every expert in a layer",
        CONVERTER,
        incomplete_experts,
    )
    .converts(),
    Rule::new("dora", Effect::Refused, "it has no DoRA", CONVERTER, decomposed).extracts(),
    Rule::new(
        "tensor-names",
        Effect::Refused,
        "its converter takes no tensors but lora_A and lora_B, without an adapter's name in theirs",
        CONVERTER,
        strange_factors,
    )
    .converts(),
    Rule::new(
        "replaced",
        Effect::Refused,
        "it has no place for tensors that replace the base's; merge them instead",
        CONVERTER,
        |subject| replaced_norms(subject, false),
    ),
    Rule::new(
        "norms",
        Effect::Ignored,
        "its converter passes norms on, and its run time passes over them; merge them instead",
        RUNTIME,
        |subject| replaced_norms(subject, true),
    ),
    Rule::new(
        "base-layers",
        Effect::Ignored,
        "its converter passes over whole embeddings and heads that were saved beside their factors; merge them instead",
        CONVERTER,
        base_layers,
    ),
    Rule::new(
        "initialisation",
        Effect::Changed,
        "it adds the factors to the base that their initialisation changed",
        CONVERTER,
        changed_base,
    ),
    Rule::new(
        "architecture",
        Effect::Refused,
        "it refuses adapters of another architecture than the base's",
        RUNTIME,
        other_architecture,
    ),
    Rule::new("bias", Effect::Refused, "it has no biases of B", CONVERTER, biased).extracts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it knows plain factors only; converting makes them, which these have exactly",
        CONVERTER,
        factorable,
    )
    .converts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it knows plain factors only, and these have none without the base",
        CONVERTER,
        |subject| if decomposed(subject).is_some() { None } else { unfactorable(subject) },
    )
    .extracts(),
    Rule::new(
        "tied-head",
        Effect::Refused,
        "the base's head is its embeddings, and there is no tensor of its own for factors of the head",
        CONVERTER,
        tied_head,
    ),
    Rule::new(
        "latent-keys",
        Effect::Ignored,
        "it has kv_b_proj of this class as two tensors, which it multiplies without adapters",
        "src/models/deepseek2.cpp and src/llama-graph.cpp, build_attn_mha",
        |subject| {
            let class = subject.class()?;
            let latent = ["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"].contains(&class);
            if latent { subject.modules(|module| module.name.ends_with(".kv_b_proj")) } else { None }
        },
    ),
    Rule::new("base", Effect::Refused, "it refuses what the base does not have", RUNTIME, not_in_base),
];

/// Ollama has them too.
pub(super) static CLASSES: &[Rule] = &[
    Rule::new(
        "class",
        Effect::Refused,
        "its converter has no class for models of this type",
        "convert_hf_to_gguf.py, ModelBase.register",
        unconverted_class,
    ),
    Rule::new(
        "class",
        Effect::Unknown,
        "its names of models of this type are not known",
        "convert_hf_to_gguf.py, ModelBase.register",
        unnamed_class,
    ),
    Rule::new(
        "towers",
        Effect::Refused,
        "it has towers in a file of their own (mmproj), for which there are no adapters",
        RUNTIME,
        towers,
    ),
    Rule::new("joined", Effect::Refused, "its architecture of the base has these projections divided", CONVERTER, joined_modules)
        .converts(),
    Rule::new("divided", Effect::Refused, "its architecture of the base has these projections joined", CONVERTER, |subject| {
        unnamed_and(subject, true)
    }),
    Rule::new(
        "names",
        Effect::Unknown,
        "its name for these in the architecture of the base is not known",
        CONVERTER,
        |subject| unnamed_and(subject, false),
    ),
];

/// Modules without a name in the base's architecture that are parts of the base's tensors, or are not.
fn unnamed_and(subject: &Subject<'_>, in_base: bool) -> Found {
    let respelled: BTreeSet<&str> =
        subject.respelled().into_iter().map(|module| module.name.as_str()).collect();
    let unnamed = unnamed_modules(subject)?.into_iter();
    some(unnamed.filter(|place| respelled.contains(place.name.as_str()) == in_base).collect())
}

/// Factors of a head that the base does not store, or of which its config says that it is its embeddings.
fn tied_head(subject: &Subject<'_>) -> Found {
    let base = subject.base?;
    let stored = |name: &&str| name.ends_with("lm_head.weight") || **name == *"output.weight";
    let tied = base.config.get("tie_word_embeddings").and_then(Value::as_bool) == Some(true);
    let has = if base.checkpoint.is_some() { base.names().iter().any(stored) } else { !tied };
    if has {
        return None;
    }
    subject.modules(|module| module.name.rsplit('.').next() == Some("lm_head"))
}

/// The architecture of a GGUF adapter, where the base has another.
pub(super) fn other_architecture(subject: &Subject<'_>) -> Found {
    let header = |shard: &crate::format::Shard| {
        shard.header.metadata.as_ref()?.get("general.architecture").cloned()
    };
    let own = subject.adapter.file.shards.first().and_then(header)?;
    let base = subject.base?;
    let stored = base.checkpoint.iter().flat_map(|file| &file.shards).find_map(header);
    let typed = || base.model_type().and_then(Architecture::of_model_type);
    let theirs = stored.or_else(|| typed().map(|found| found.name.to_owned()))?;
    named((own != theirs).then_some(own.as_str()))
}

fn not_in_base(subject: &Subject<'_>) -> Found {
    unplaced(subject).or_else(|| misfits(subject))
}
