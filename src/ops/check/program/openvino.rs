//! OpenVINO GenAI (`src/cpp/src/lora`), read at da1db864d (2026-08): a safetensors file of factors alone.

use super::readings::model;
use super::{Field, Program, Takes};
use crate::adapter::module::Kind;
use crate::ops::check::place::{Found, Place};
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{
    adapter_named, biased, changed_base, decomposed, factorable, misfits, replaced, single_experts,
    stacks, unfactorable, unplaced,
};
use crate::ops::check::subject::{Subject, some, whole};

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
        base_names: true,
        ..Takes::convention(&["peft", "kohya", "diffusers"])
    },
    older: &[],
    needs: |_| vec!["alpha 1 for the adapter".to_owned()],
    rules: &[RULES],
};

const LOAD: &str = "src/cpp/src/lora/adapter.cpp";

static RULES: &[Rule] = &[
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
    Rule::new("experts", Effect::Refused, "it has no LoRA of single experts", LOAD, single_experts),
    Rule::new(
        "stacked-experts",
        Effect::Ignored,
        "it ignores PEFT's stacks of experts",
        LOAD,
        stacks,
    ),
    Rule::new(
        "replaced",
        Effect::Ignored,
        "it ignores tensors that replace the base's, but for the head's and the embeddings'",
        LOAD,
        |subject| {
            let found = replaced(subject)?.into_iter().filter(|place| {
                !["lm_head.weight", "embed_tokens.weight"].iter().any(|own| place.name.ends_with(own))
            });
            some(found.collect())
        },
    ),
    Rule::new("bias", Effect::Ignored, "it ignores biases of B; merge them instead", LOAD, biased),
    Rule::new("embeddings", Effect::Ignored, "it ignores factors of embeddings", LOAD, |subject| {
        subject.modules(|module| module.kind == Kind::Embedding)
    }),
    Rule::new(
        "tensor-names",
        Effect::Ignored,
        "it passes over factors in whose names an adapter's name stands",
        LOAD,
        adapter_named,
    )
    .converts(),
    Rule::new(
        "initialisation",
        Effect::Changed,
        "it adds the factors to the base that their initialisation changed",
        LOAD,
        changed_base,
    ),
    Rule::new("names", Effect::Ignored, "it finds no node with a name that holds these", LOAD, nodeless)
    .converts(),
    Rule::new("model", Effect::Unknown, "its names of this model's nodes are not known", LOAD, |subject| {
        const KNOWN: [&str; 4] = ["unet", "clip", "t5", "flux"];
        match model(subject) {
            Some(model) => whole(!KNOWN.contains(&model)),
            None => subject.modules(|module| !Subject::is_language(module)),
        }
    }),
    Rule::new(
        "shapes",
        Effect::Refused,
        "their updates have other shapes than the base's weights",
        LOAD,
        misfits,
    ),
];

/// Modules whose names no tensor of the base holds. Of a model inside another the parts are exported by themselves,
/// under names that are not known.
fn nodeless(subject: &Subject<'_>) -> Found {
    let mut found = unplaced(subject).unwrap_or_default();
    if let Some(base) = subject.base.filter(|base| !base.wraps() && !base.is_diffusers()) {
        let names = base.names();
        let dotted = subject.adapter.convention.name == "peft";
        let held = |module: &str| names.iter().any(|name| name.contains(module));
        let respelled = subject.respelled().into_iter().map(|module| module.name.as_str());
        found.extend(respelled.filter(|module| dotted && !held(module)).map(Place::from));
    }
    some(found)
}
