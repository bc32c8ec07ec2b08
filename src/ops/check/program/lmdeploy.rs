//! LMDeploy's PyTorch engine (`pytorch/adapter/adapter.py`, `models/patch.py`), read at 1263d5cd8 (2026-08).

use super::unheard::{UNHEARD, unheard_class};
use super::{Experts, Field, Program, Takes};
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{
    biased, changed_base, config_scale, decomposed, dora_flag, embeddings, factorable, misfits,
    no_directory, not_language, other_ranks, replaced, respelled, strange_factors, unfactorable,
    unplaced, unprefixed, variants,
};
use crate::ops::check::subject::{named, some};

pub(super) static PROGRAM: Program = Program {
    name: "lmdeploy",
    aliases: &[],
    version: "2026-08",
    oldest: "2026-08",
    field: Field::Language,
    reads: &["peft"],
    converts: &[],
    takes: Takes { leaf_targets: true, experts: Experts::AsTheyAre, ..Takes::SERVER },
    older: &[],
    needs: |_| vec!["--backend pytorch".to_owned()],
    rules: &[RULES],
};

const LOAD: &str = "pytorch/adapter/adapter.py, load_lora_weights";
const SCALE: &str = "pytorch/adapter/adapter.py, get_ranks_and_scalings";

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
        "it finds no module of these names in the base",
        LOAD,
        |subject| some(unplaced(subject).into_iter().chain(respelled(subject)).flatten().collect()),
    )
    .converts(),
    Rule::new(
        "scale",
        Effect::ScaledWrongly,
        "it multiplies every module by lora_alpha / r, and reads neither use_rslora nor patterns",
        SCALE,
        config_scale,
    )
    .converts(),
    Rule::new(
        "targets",
        Effect::Ignored,
        "it takes target_modules as a list, and a pattern for single letters",
        SCALE,
        |subject| named(subject.text("target_modules").and(Some("target_modules"))),
    )
    .converts(),
    Rule::new(
        "ranks",
        Effect::Refused,
        "it wants r of the config as the rank of every module",
        SCALE,
        other_ranks,
    )
    .converts(),
    Rule::new(
        "tensor-names",
        Effect::Refused,
        "it cuts `base_model.model.` off every name without a look, and takes nothing but lora_A.weight and lora_B.weight behind it",
        LOAD,
        |subject| {
            let (strange, bare) = (strange_factors(subject), unprefixed(subject));
            some(strange.into_iter().chain(bare).flatten().collect())
        },
    )
    .converts(),
    Rule::new("dora", Effect::Refused, "it refuses DoRA", LOAD, decomposed).extracts(),
    Rule::new(
        "dora",
        Effect::Refused,
        "it refuses use_dora, also without magnitudes",
        LOAD,
        dora_flag,
    )
    .converts(),
    Rule::new("bias", Effect::Refused, "it refuses biases of B", LOAD, biased).extracts(),
    Rule::new(
        "replaced",
        Effect::Refused,
        "it refuses tensors that replace the base's; merge them instead",
        LOAD,
        replaced,
    ),
    Rule::new("embeddings", Effect::Refused, "it refuses factors of embeddings", LOAD, embeddings),
    Rule::new("experts", Effect::Refused, "it has no LoRA of experts", LOAD, |subject| {
        subject.modules(|module| module.name.contains(".experts."))
    }),
    Rule::new("variant", Effect::Changed, "it does not read these fields", LOAD, variants),
    Rule::new(
        "initialisation",
        Effect::Changed,
        "it adds the factors to the base that their initialisation changed",
        LOAD,
        changed_base,
    ),
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only; converting makes factors, which these have exactly",
        LOAD,
        factorable,
    )
    .converts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only, and these have no factors without the base",
        LOAD,
        |subject| if decomposed(subject).is_some() { None } else { unfactorable(subject) },
    )
    .extracts(),
    Rule::new("model", Effect::Unknown, "their names are no language model's", LOAD, not_language),
    Rule::new("class", Effect::Unknown, UNHEARD, "pytorch/models/module_map.py", unheard_class),
    Rule::new(
        "shapes",
        Effect::Refused,
        "their updates have other shapes than the base's weights",
        LOAD,
        misfits,
    ),
];
