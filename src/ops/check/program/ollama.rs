//! Ollama (`convert/convert*_adapter.go`, `server/create.go`), read at fb3076099 (2026-08): one GGUF file,
//! for llama.cpp; or a directory of safetensors of two architectures, wrongly turned for one.

use super::{Field, Program, Takes, llama_cpp, nothing};
use crate::ops::check::place::Found;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{
    config_alpha, decomposed, misfits, other_families, replaced, unplaced,
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
    needs: nothing,
    rules: &RULES,
};

const CONVERT: &str = "convert/convert.go, ConvertAdapter";

static RULES: [Rule; 8] = [
    Rule::new(
        "architecture",
        Effect::Refused,
        "of a directory of safetensors it knows the architectures llama and gemma2 only",
        CONVERT,
        |subject| {
            let class = subject.class()?;
            let known = ["LlamaForCausalLM", "MistralForCausalLM", "Gemma2ForCausalLM"];
            whole(is_directory(subject) && !known.contains(&class))
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
            let llama = ["LlamaForCausalLM", "MistralForCausalLM"];
            subject.class().filter(|class| is_directory(subject) && llama.contains(class))?;
            subject.modules(|module| {
                module.name.ends_with(".q_proj") || module.name.ends_with(".k_proj")
            })
        },
    )
    .converts(),
    Rule::new(
        "alpha",
        Effect::Refused,
        "it reads lora_alpha as a whole number without a point",
        CONVERT,
        |subject| {
            let alpha = subject.config()?.get("lora_alpha")?;
            named((!alpha.is_u64()).then_some("lora_alpha"))
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
    Rule::new(
        "family",
        Effect::Refused,
        "it knows plain factors only; merge the rest",
        CONVERT,
        |subject| match decomposed(subject) {
            Some(_) => replaced(subject),
            None => other_families(subject).or_else(|| replaced(subject)),
        },
    ),
    Rule::new("base", Effect::Refused, "it refuses what the base does not have", CONVERT, |subject| {
        unplaced(subject).or_else(|| misfits(subject))
    }),
];

fn is_directory(subject: &Subject<'_>) -> bool {
    subject.adapter.convention.name != "gguf"
}

fn scaled(subject: &Subject<'_>) -> Found {
    match subject.adapter.convention.name {
        // mlx-lm's scale is not read, and there is no alpha.
        "mlx" => subject.scaled(|_| 1.0),
        _ => config_alpha(subject),
    }
}
