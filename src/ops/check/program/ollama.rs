//! Ollama (`convert/convert*_adapter.go`, `server/create.go`), read at fb3076099 (2026-08): one GGUF file,
//! for llama.cpp; or a directory of safetensors of two architectures, wrongly turned for one.

use serde_json::Value;

use super::{Field, Program, Takes, llama_cpp, nothing};
use crate::ops::check::place::Found;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{
    biased, changed_base, config_alpha, decomposed, factorable, misfits, replaced, strange_factors,
    unfactorable, unplaced,
};
use crate::ops::check::subject::{Subject, named, whole};

pub(super) static PROGRAM: Program = Program {
    name: "ollama",
    aliases: &[],
    version: "2026-08",
    oldest: "2026-08",
    field: Field::Language,
    reads: &["gguf", "peft", "mlx"],
    converts: &[],
    takes: Takes { modelfile: true, ..llama_cpp::PROGRAM.takes },
    older: &[],
    needs: nothing,
    rules: &[RULES, llama_cpp::CLASSES],
};

const CONVERT: &str = "convert/convert.go, ConvertAdapter";

/// Classes whose GGUF is of the architecture llama, and those that it reads directories for.
const LLAMA: [&str; 3] = ["LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"];
const KNOWN: [&str; 4] =
    ["LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Gemma2ForCausalLM"];

static RULES: &[Rule] = &[
    Rule::new(
        "architecture",
        Effect::Refused,
        "of a directory of safetensors it knows the architectures llama and gemma2 only",
        CONVERT,
        |subject| {
            let class = subject.class()?;
            whole(is_directory(subject) && !KNOWN.contains(&class))
        },
    )
    .converts(),
    Rule::new(
        "architecture",
        Effect::Unknown,
        "of a directory of safetensors it knows the architectures llama and gemma2 only: --against BASE",
        CONVERT,
        |subject| whole(is_directory(subject) && subject.class().is_none()),
    )
    .converts(),
    Rule::new(
        "query-rows",
        Effect::LandsElsewhere,
        "it reorders A of queries and keys where llama.cpp wants B's rows reordered",
        "convert/convert_llama_adapter.go, repack",
        |subject| {
            subject.class().filter(|class| is_directory(subject) && LLAMA.contains(class))?;
            subject.modules(|module| {
                module.name.ends_with(".q_proj") || module.name.ends_with(".k_proj")
            })
        },
    )
    .converts(),
    Rule::new(
        "names",
        Effect::Refused,
        "its converter knows the projections of attention and MLP in `model.layers` only, and lets other names through, which its llama.cpp refuses",
        "convert/convert_llama_adapter.go, Replacements",
        |subject| {
            subject.class().filter(|class| is_directory(subject) && KNOWN.contains(class))?;
            if subject.adapter.stacks.is_empty() {
                subject.modules(|module| !is_projection(&module.name))
            } else {
                subject.stacks()
            }
        },
    )
    .converts(),
    Rule::new(
        "tensor-names",
        Effect::Refused,
        "its converter takes no tensors but lora_A and lora_B, without an adapter's name in theirs",
        CONVERT,
        |subject| if is_directory(subject) { strange_factors(subject) } else { None },
    )
    .converts(),
    Rule::new(
        "initialisation",
        Effect::Changed,
        "it adds the factors to the base that their initialisation changed",
        CONVERT,
        changed_base,
    ),
    Rule::new(
        "alpha",
        Effect::Refused,
        "it reads lora_alpha as a whole number without a point",
        CONVERT,
        |subject| {
            let alpha = subject.config()?.get("lora_alpha")?;
            named((!alpha.is_u64() && !alpha.is_null()).then_some("lora_alpha"))
        },
    )
    .converts(),
    Rule::new(
        "scale",
        Effect::ScaledWrongly,
        "it takes lora_alpha for every module, and reads neither use_rslora nor alpha_pattern",
        CONVERT,
        scaled,
    )
    .converts(),
    Rule::new("dora", Effect::Refused, "it has no DoRA", CONVERT, decomposed).extracts(),
    Rule::new("bias", Effect::Refused, "it has no biases of B; merge them instead", CONVERT, biased),
    Rule::new(
        "replaced",
        Effect::Refused,
        "it has no place for tensors that replace the base's; merge them instead",
        CONVERT,
        replaced,
    ),
    Rule::new(
        "family",
        Effect::Refused,
        "it knows plain factors only; converting makes them, which these have exactly",
        CONVERT,
        factorable,
    )
    .converts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it knows plain factors only, and these have none without the base",
        CONVERT,
        |subject| if decomposed(subject).is_some() { None } else { unfactorable(subject) },
    )
    .extracts(),
    Rule::new(
        "architecture",
        Effect::Refused,
        "its llama.cpp refuses adapters of another architecture than the base's",
        "llm/llama_server.go",
        llama_cpp::other_architecture,
    ),
    Rule::new("base", Effect::Refused, "it refuses what the base does not have", CONVERT, |subject| {
        unplaced(subject).or_else(|| misfits(subject))
    }),
];

fn is_directory(subject: &Subject<'_>) -> bool {
    subject.adapter.convention.name != "gguf"
}

/// Whether its converter has a name for the module.
fn is_projection(name: &str) -> bool {
    const LASTS: [&str; 7] =
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj"];
    let below = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let parts = below.and_then(|(_, rest)| rest.split_once('.'));
    parts.is_some_and(|(part, last)| ["self_attn", "mlp"].contains(&part) && LASTS.contains(&last))
}

fn scaled(subject: &Subject<'_>) -> Found {
    match subject.adapter.convention.name {
        // mlx-lm's scale is not read, and there is no alpha.
        "mlx" => subject.scaled(|_| 1.0),
        "peft" if subject.config()?.get("lora_alpha").is_none_or(Value::is_null) => subject.scaled(|_| 1.0),
        _ => config_alpha(subject),
    }
}
