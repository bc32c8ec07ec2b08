//! Text Generation Inference (`adapters/lora.py`), read at db931fcf (2026-01).

use std::collections::{BTreeMap, BTreeSet};

use super::unheard::{UNHEARD, unheard_class};
use super::{Field, Program, Takes, nothing};
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{
    adapter_named, biased, changed_base, decomposed, factorable, is_embedding, last_of, misfits, missing_layers,
    no_directory, not_language, replaced, respelled, single_experts, stacks, unfactorable,
    towers, unplaced, unprefixed, variants,
};
use crate::ops::check::subject::some;

pub(super) static PROGRAM: Program = Program {
    name: "tgi",
    aliases: &["text-generation-inference"],
    version: "2026-01",
    oldest: "2026-01",
    field: Field::Language,
    reads: &["peft"],
    converts: &[],
    takes: Takes { every_layer: true, ..Takes::SERVER },
    older: &[],
    needs: nothing,
    rules: &[RULES],
};

const MAP: &str = "adapters/lora.py, map_weights_for_model";
const PREPARE: &str = "adapters/lora.py, prepare_weights";

/// LoRAX has them too.
pub(super) static RULES: &[Rule] = &[
    Rule::new(
        "files",
        Effect::Refused,
        "it reads a directory of adapter_config.json and adapter_model.safetensors",
        MAP,
        no_directory,
    )
    .converts(),
    Rule::new("names", Effect::Ignored, "it looks for the base's own names only", MAP, |subject| {
        some(unplaced(subject).into_iter().chain(respelled(subject)).flatten().collect())
    })
    .converts(),
    Rule::new(
        "tensor-names",
        Effect::Ignored,
        "it looks for `base_model.model.` once, the base's name, and lora_A.weight or lora_B.weight, and warns of others",
        MAP,
        |subject| {
            let (strange, bare) = (adapter_named(subject), unprefixed(subject));
            some(strange.into_iter().chain(bare).flatten().collect())
        },
    )
    .converts(),
    Rule::new(
        "scale",
        Effect::ScaledWrongly,
        "it multiplies every module by lora_alpha and r of the config, and does not read patterns",
        PREPARE,
        |subject| {
            subject.config()?;
            let (alpha, rank) = (subject.common_alpha(), subject.common_rank() as f64);
            let common = alpha / if subject.flag("use_rslora") { rank.sqrt() } else { rank };
            subject.scaled(|_| common)
        },
    )
    .converts(),
    Rule::new(
        "ranks",
        Effect::Refused,
        "it wants one rank for all layers of a kind of module",
        PREPARE,
        |subject| {
            let mut ranks: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
            for module in &subject.adapter.modules {
                ranks.entry(last_of(module)).or_default().insert(module.rank);
            }
            subject.modules(|module| ranks.get(last_of(module)).is_some_and(|own| own.len() > 1))
        },
    )
    .converts(),
    Rule::new(
        "missing-layers",
        Effect::Ignored,
        "it drops a kind of module in all layers if one layer is without it",
        PREPARE,
        missing_layers,
    )
    .converts(),
    Rule::new("dora", Effect::Changed, "it ignores magnitudes (DoRA)", MAP, decomposed).extracts(),
    Rule::new("bias", Effect::Ignored, "it ignores biases of B", MAP, biased).extracts(),
    Rule::new(
        "replaced",
        Effect::Ignored,
        "it ignores tensors that replace the base's; merge them instead",
        MAP,
        replaced,
    ),
    Rule::new("embeddings", Effect::Ignored, "it ignores factors of embeddings", MAP, |subject| {
        subject.modules(|module| is_embedding(module) && !module.name.ends_with("lm_head"))
    }),
    Rule::new("experts", Effect::Refused, "it has no LoRA of experts", MAP, single_experts),
    Rule::new(
        "stacked-experts",
        Effect::Ignored,
        "it ignores PEFT's stacks of experts",
        MAP,
        stacks,
    ),
    Rule::new("variant", Effect::Changed, "it does not read these fields", PREPARE, variants),
    Rule::new(
        "initialisation",
        Effect::Changed,
        "it adds the factors to the base that their initialisation changed",
        MAP,
        changed_base,
    ),
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only; converting makes factors, which these have exactly",
        MAP,
        factorable,
    )
    .converts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only, and these have no factors without the base",
        MAP,
        |subject| if decomposed(subject).is_some() { None } else { unfactorable(subject) },
    )
    .extracts(),
    Rule::new("model", Effect::Unknown, "their names are no language model's", MAP, not_language),
    Rule::new("class", Effect::Unknown, UNHEARD, "models/__init__.py, get_model", unheard_class),
    Rule::new("towers", Effect::Ignored, "it looks for the language model's modules only", MAP, towers),
    Rule::new(
        "shapes",
        Effect::Refused,
        "their updates have other shapes than the base's weights",
        PREPARE,
        misfits,
    ),
];
