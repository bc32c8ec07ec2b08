//! TensorRT-LLM (`tensorrt_llm/lora_manager.py`), read at 007e181b (2026).

use super::unheard::{UNHEARD, unheard_class};
use super::{Experts, Field, Program, Takes, nothing};
use crate::adapter::module::Module;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{
    biased, changed_base, factorable, is_embedding, misfits, no_directory, not_language,
    numbered_towers, replaced, stacks, strange_factors, unfactorable, unplaced, variants,
};
use crate::ops::check::subject::{expert_of, some};

pub(super) static PROGRAM: Program = Program {
    name: "tensorrt-llm",
    aliases: &["trtllm", "tensorrt_llm"],
    version: "2026",
    oldest: "2026",
    field: Field::Language,
    reads: &["peft"],
    converts: &[],
    takes: Takes {
        uniform: true,
        lora_only: true,
        base_names: true,
        experts: Experts::Single,
        matrices: Some(["w1", "w3", "w2"]),
        complete: &[&["q_proj", "k_proj", "v_proj"]],
        ..Takes::convention(&["peft"])
    },
    older: &[],
    needs: |subject| match subject.rank() {
        0..=64 => nothing(subject),
        rank => vec![format!("max_lora_rank {rank}")],
    },
    rules: &[RULES],
};

const NAMES: &str = "tensorrt_llm/lora_manager.py, HF_LORA_PATTERN";
const LOAD: &str = "tensorrt_llm/lora_manager.py, load_from_hf";

/// Last parts of names that it knows (`get_default_trtllm_modules_to_hf_modules`).
const KNOWN: [&str; 12] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "gate_up_proj",
    "w1",
    "w2",
    "w3",
    "gate",
];

static RULES: &[Rule] = &[
    Rule::new(
        "files",
        Effect::Refused,
        "it reads a directory of adapter_config.json and adapter_model.safetensors",
        LOAD,
        no_directory,
    )
    .converts(),
    Rule::new(
        "names",
        Effect::Refused,
        "it knows the projections of attention and MLP in numbered layers only",
        NAMES,
        |subject| {
            let known = |module: &Module| {
                let last = module.name.rsplit('.').next().unwrap_or_default();
                KNOWN.contains(&last) && is_in_layer(&module.name) || is_embedding(module)
            };
            if subject.adapter.stacks.is_empty() {
                subject.modules(|module| !known(module))
            } else {
                None
            }
        },
    ),
    Rule::new(
        "tensor-names",
        Effect::Refused,
        "it takes no tensors but lora_A, lora_B and magnitudes, without an adapter's name in theirs",
        NAMES,
        strange_factors,
    )
    .converts(),
    Rule::new(
        "max-rank",
        Effect::Refused,
        "it refuses ranks above the max_lora_rank that it was built for",
        LOAD,
        |subject| {
            let most = subject.max_rank?;
            subject.modules(|module| module.rank > most)
        },
    )
    .resizes(|subject| subject.max_rank.unwrap_or_default()),
    Rule::new("embeddings", Effect::Ignored, "it ignores embeddings and the head", NAMES, |subject| {
        subject.modules(is_embedding)
    }),
    Rule::new("stacked-experts", Effect::Refused, "it refuses PEFT's stacks of experts", NAMES, stacks)
    .converts(),
    Rule::new(
        "expert-names",
        Effect::Refused,
        "it takes experts under the names w1, w2 and w3 only, and others for the dense module",
        NAMES,
        |subject| {
            let named = |module: &Module| {
                expert_of(&module.name).is_some_and(|(_, _, last)| !last.starts_with('w'))
            };
            if subject.adapter.stacks.is_empty() { subject.modules(named) } else { None }
        },
    )
    .converts(),
    Rule::new(
        "scale",
        Effect::ScaledWrongly,
        "it multiplies every module by lora_alpha over its rank, and does not read alpha_pattern",
        LOAD,
        |subject| {
            subject.config()?;
            let (alpha, rslora) = (subject.common_alpha(), subject.flag("use_rslora"));
            subject.scaled(|module| {
                let rank = module.rank.max(1) as f64;
                alpha / if rslora { rank.sqrt() } else { rank }
            })
        },
    )
    .converts(),
    Rule::new(
        "dora-experts",
        Effect::Refused,
        "it has no DoRA of experts",
        LOAD,
        |subject| {
            subject.modules(|module| module.magnitude.is_some() && expert_of(&module.name).is_some())
        },
    )
    .extracts(),
    Rule::new(
        "incomplete-attention",
        Effect::Refused,
        "where one of q_proj, k_proj and v_proj is missing it makes zeros, of the wrong size in models of grouped queries",
        LOAD,
        |subject| {
            let heads = |field: &str| subject.base.and_then(|base| base.number(field));
            let (queries, keys) = (heads("num_attention_heads"), heads("num_key_value_heads"));
            if queries.is_some() && queries == keys {
                return None;
            }
            let parts = ["q_proj", "k_proj", "v_proj"];
            let lacking = subject.siblings().into_iter().filter(|(_, own)| {
                let has = parts.iter().filter(|part| own.contains_key(*part)).count();
                has > 0 && has < parts.len()
            });
            some(lacking.map(|(above, _)| above.into()).collect())
        },
    )
    .converts(),
    Rule::new("bias", Effect::Refused, "it refuses biases of B", NAMES, biased).extracts(),
    Rule::new(
        "replaced",
        Effect::Ignored,
        "its PyTorch path ignores tensors that replace the base's; merge them instead",
        LOAD,
        replaced,
    ),
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only; converting makes factors, which these have exactly",
        NAMES,
        |subject| {
            let dora = subject.adapter.modules.iter().any(|module| module.family == "dora");
            if dora { None } else { factorable(subject) }
        },
    )
    .converts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only, and these have no factors without the base",
        NAMES,
        unfactorable,
    )
    .extracts(),
    Rule::new(
        "variant",
        Effect::Changed,
        "it does not read what makes these another kind of adapter",
        LOAD,
        |subject| variants(subject).or_else(|| changed_base(subject)),
    ),
    Rule::new("model", Effect::Unknown, "their names are no language model's", NAMES, not_language),
    Rule::new("class", Effect::Unknown, UNHEARD, "tensorrt_llm/_torch/models", unheard_class),
    Rule::new(
        "towers",
        Effect::LandsElsewhere,
        "it adds a tower's layers to the language model's layers of the same number",
        NAMES,
        numbered_towers,
    ),
    Rule::new(
        "base",
        Effect::Refused,
        "the base has no weight of this layer, name and shape",
        LOAD,
        |subject| unplaced(subject).or_else(|| misfits(subject)),
    ),
];

/// Whether a name has a layer's number, what is in it, and a module or two below.
fn is_in_layer(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let number = parts.iter().position(|part| part.parse::<usize>().is_ok());
    number.is_some_and(|at| at > 0 && parts.len() >= at + 3)
}
