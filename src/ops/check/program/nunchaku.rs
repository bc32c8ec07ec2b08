//! Nunchaku (`nunchaku/lora/flux`), read at 3a3cc3d (2025-12): LoRA for Flux.1, through diffusers' own
//! conversion, or for PEFT's names by one of its own.

use super::diffusers_names as names;
use super::readings::{Fate, model};
use super::{Field, Program, Takes, nothing};
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{decomposed, misfits, replaced};
use crate::ops::check::subject::whole;

pub(super) static PROGRAM: Program = Program {
    name: "nunchaku",
    aliases: &[],
    version: "2025-12",
    oldest: "2025-12",
    field: Field::Image,
    reads: &["diffusers", "kohya", "comfyui", "xlabs", "bfl", "peft"],
    converts: &[],
    takes: Takes::convention(&["diffusers"]),
    older: &[],
    needs: nothing,
    rules: &[RULES],
};

const LOAD: &str = "nunchaku/lora/flux/diffusers_converter.py, to_diffusers";

static RULES: &[Rule] = &[
    Rule::new(
        "model",
        Effect::Refused,
        "it has LoRA for Flux.1 only",
        "nunchaku/models/transformers/transformer_flux.py, update_lora_params",
        |subject| {
            // PEFT's directories are of any model.
            let own = subject.adapter.convention.name == "peft";
            let known = model(subject).map(|model| ["flux", "clip", "t5"].contains(&model));
            whole(!known.unwrap_or(!own))
        },
    ),
    Rule::new("model", Effect::Unknown, "nothing tells which model they are of", LOAD, |subject| {
        let own = subject.adapter.convention.name == "peft";
        whole(!own && subject.models.is_empty())
    }),
    Rule::new(
        "names",
        Effect::Ignored,
        "diffusers' conversion passes over these",
        LOAD,
        |subject| names::modules(subject, Fate::Lost),
    )
    .converts(),
    Rule::new(
        "leftovers",
        Effect::Refused,
        "diffusers' conversion refuses the whole file for what it does not use up, here these",
        LOAD,
        |subject| {
            let own = subject.adapter.convention.name == "peft";
            if own { None } else { names::modules(subject, Fate::Refused) }
        },
    )
    .converts(),
    Rule::new("dora", Effect::Changed, "it drops magnitudes (DoRA)", LOAD, decomposed).extracts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only; converting makes factors where that is exact",
        LOAD,
        |subject| subject.modules(|module| !["lora", "dora"].contains(&module.family)),
    )
    .converts(),
    Rule::new(
        "scale",
        Effect::ScaledWrongly,
        "it does not read PEFT's config, and multiplies by 1",
        LOAD,
        |subject| {
            let own = subject.adapter.convention.name == "peft";
            if own { subject.scaled(|_| 1.0) } else { None }
        },
    )
    .converts(),
    Rule::new(
        "replaced",
        Effect::Ignored,
        "it ignores tensors that replace the base's",
        LOAD,
        |subject| {
            let control = ["bfl", "diffusers"].contains(&subject.adapter.convention.name);
            if control { None } else { replaced(subject) }
        },
    ),
    Rule::new(
        "shapes",
        Effect::Refused,
        "their updates have other shapes than the base's weights",
        LOAD,
        misfits,
    ),
];
