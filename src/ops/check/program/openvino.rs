//! OpenVINO GenAI (`src/cpp/src/lora`), read at da1db864d (2026-08): a safetensors file of factors alone.

use super::{Field, Program, Takes};
use crate::adapter::module::Kind;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{decomposed, factorable, replaced, unfactorable, unplaced};
use crate::ops::check::subject::{Subject, expert_of};

pub(super) static PROGRAM: Program = Program {
    name: "openvino",
    aliases: &["openvino-genai"],
    version: "2026-08",
    oldest: "2026-08",
    field: Field::Any,
    reads: &["peft", "kohya", "diffusers", "xlabs", "comfyui"],
    converts: &[],
    takes: Takes {
        uniform: true,
        scale_one: true,
        factors_only: true,
        ..Takes::convention(&["peft", "kohya", "diffusers"])
    },
    needs: |_| vec!["alpha 1 for the adapter".to_owned()],
    rules: &RULES,
};

const LOAD: &str = "src/cpp/src/lora/adapter.cpp";

static RULES: [Rule; 8] = [
    Rule::new(
        "scale",
        Effect::ScaledWrongly,
        "it ignores alpha tensors and configs, and multiplies by the number that the caller gives (1)",
        LOAD,
        |subject| subject.scaled(|_| 1.0),
    )
    .converts(),
    Rule::new("dora", Effect::Changed, "it ignores magnitudes (DoRA)", LOAD, decomposed).extracts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it knows plain factors only; converting makes them, which these have exactly",
        LOAD,
        factorable,
    )
    .converts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it knows plain factors only, and these have none without the base",
        LOAD,
        |subject| if decomposed(subject).is_some() { None } else { unfactorable(subject) },
    )
    .extracts(),
    Rule::new("convolutions", Effect::Refused, "it has no convolutions but 1 × 1", LOAD, |subject| {
        let large = |kind: &Kind| matches!(kind, Kind::Conv(kernel) if kernel.iter().any(|size| *size > 1));
        subject.modules(|module| large(&module.kind))
    }),
    Rule::new("experts", Effect::Ignored, "it has no LoRA of experts", LOAD, |subject| {
        subject.modules(|module| expert_of(&module.name).is_some())
    }),
    Rule::new(
        "replaced",
        Effect::Ignored,
        "it ignores tensors that replace the base's, but for the head's and the embeddings'",
        LOAD,
        replaced,
    ),
    Rule::new("names", Effect::Ignored, "it finds no node with a name that holds these", LOAD, |subject: &Subject<'_>| {
        unplaced(subject)
    }),
];
