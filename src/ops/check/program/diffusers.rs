//! diffusers (`loaders/lora_base.py`, `loaders/lora_conversion_utils.py`), read at 0.33 to 0.42: LoRA,
//! through PEFT, and LoKr for two models.

use super::diffusers_names as names;
use super::readings::{Fate, model};
use super::{Field, Program, Takes, nothing};
use crate::ops::check::base::Base;
use crate::ops::check::place::Found;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{adapter_named, changed_base, decomposed, misfits, replaced};
use crate::ops::check::subject::{Subject, named, some, whole};

pub(super) static PROGRAM: Program = Program {
    name: "diffusers",
    aliases: &[],
    version: "0.42.0",
    oldest: "0.33",
    field: Field::Image,
    reads: &["diffusers", "kohya", "comfyui", "xlabs", "bfl", "peft"],
    converts: &[],
    takes: Takes::convention(&["diffusers"]),
    older: &[],
    needs: nothing,
    rules: &[RULES],
};

const CONVERT: &str = "loaders/lora_conversion_utils.py";
const BASE: &str = "loaders/lora_base.py";
const PIPELINES: &str = "loaders/lora_pipeline.py, lora_state_dict";

static RULES: &[Rule] = &[
    Rule::new(
        "convention",
        Effect::Refused,
        "it does not read PEFT's names of this model",
        PIPELINES,
        |subject| {
            let peft = subject.adapter.convention.name == "peft";
            whole(peft && !names::reads_peft(subject))
        },
    ),
    Rule::new(
        "config",
        Effect::ScaledWrongly,
        "it does not read PEFT's config, and takes the rank for alpha",
        BASE,
        |subject| {
            let peft = subject.adapter.convention.name == "peft" && names::reads_peft(subject);
            if peft { subject.scaled(|_| 1.0) } else { None }
        },
    )
    .converts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only; converting makes factors where that is exact",
        BASE,
        other_families,
    )
    .converts(),
    Rule::new(
        "family",
        Effect::Refused,
        "this release has no LoKr; converting makes factors where that is exact",
        CONVERT,
        |subject| if other_families(subject).is_some() { None } else { lokr(subject) },
    )
    .until("0.42")
    .converts(),
    Rule::new(
        "metadata",
        Effect::Refused,
        "it takes ranks and alphas of the header, or alpha tensors, and refuses both in one file",
        BASE,
        |subject| {
            let said = !subject.adapter.components.is_empty();
            let alphas = subject.adapter.file.names().filter(|name| name.ends_with(".alpha"));
            if said { named(alphas) } else { None }
        },
    )
    .converts(),
    Rule::new(
        "tensor-names",
        Effect::Ignored,
        "it passes over factors in whose names an adapter's name stands, but for Qwen-Image, Z-Image and MiniMax-H3",
        CONVERT,
        |subject| {
            let taken = ["qwen_image", "qwen_image_2_1", "z_image", "minimax_h3"];
            let taken = model(subject).is_some_and(|model| taken.contains(&model));
            if taken { None } else { adapter_named(subject) }
        },
    )
    .converts(),
    Rule::new(
        "initialisation",
        Effect::Changed,
        "it adds the factors to the base that their initialisation changed",
        BASE,
        changed_base,
    ),
    Rule::new(
        "replaced",
        Effect::Ignored,
        "it ignores tensors that replace the base's",
        CONVERT,
        ignored,
    ),
    Rule::new(
        "magnitudes",
        Effect::Changed,
        "it drops dora_scale with a warning, and adds the directions without their lengths",
        CONVERT,
        |subject| if has_dora_scale(subject) { decomposed(subject) } else { None },
    )
    .extracts(),
    Rule::new(
        "alpha",
        Effect::ScaledWrongly,
        "it drops alphas beside lora_A and lora_B without a word, and multiplies by 1",
        "loaders/lora_conversion_utils.py, _convert_non_diffusers_ltx2_lora_to_diffusers and its like",
        names::dropped_alphas,
    )
    .converts(),
    Rule::new(
        "swapped-rows",
        Effect::LandsElsewhere,
        "its LoRA converter leaves shift and scale in the published order, its model has them the other way round",
        "loaders/lora_conversion_utils.py, _convert_non_diffusers_flux2_lora_to_diffusers",
        |subject| {
            let dotted = ["comfyui", "peft"].contains(&subject.adapter.convention.name);
            let flux2 = dotted && subject.models.contains("flux2");
            let last = |name: &str| name.ends_with("final_layer.adaLN_modulation.1");
            let taken = names::modules(subject, Fate::Taken).filter(|_| flux2)?;
            some(taken.into_iter().filter(|place| last(&place.name)).collect())
        },
    )
    .converts(),
    Rule::new(
        "ranks",
        Effect::ScaledWrongly,
        "it takes the rank of the first module for the alpha of all",
        "utils/peft_utils.py, get_peft_kwargs",
        |subject| {
            let said = !subject.adapter.components.is_empty();
            let alphas = subject.adapter.file.names().any(|name| name.ends_with(".alpha"));
            if said || alphas { return None; }
            let first = subject.adapter.modules.first()?.rank.max(1) as f64;
            subject.scaled(|module| module.scale.value * first / module.rank.max(1) as f64)
        },
    )
    .until("0.40")
    .converts(),
    Rule::new(
        "names",
        Effect::Ignored,
        "it finds no modules under these names, and says so in one warning at most",
        PIPELINES,
        |subject| names::modules(subject, Fate::Lost),
    )
    .converts(),
    Rule::new(
        "leftovers",
        Effect::Refused,
        "its converter refuses the whole file for what it does not use up, here these",
        CONVERT,
        |subject| names::modules(subject, Fate::Refused),
    )
    .converts(),
    Rule::new(
        "names",
        Effect::Unknown,
        "nothing tells which of the pipelines with such names the adapter is for; one converts them, another passes over them",
        PIPELINES,
        |subject| names::modules(subject, Fate::Unknown),
    )
    .converts(),
    unconverted(|subject| names::before(subject, names::RELEASES[0])).until(names::RELEASES[0]),
    unconverted(|subject| names::before(subject, names::RELEASES[1])).until(names::RELEASES[1]),
    unconverted(|subject| names::before(subject, names::RELEASES[2])).until(names::RELEASES[2]),
    unconverted(|subject| names::before(subject, names::RELEASES[3])).until(names::RELEASES[3]),
    unconverted(|subject| names::before(subject, names::RELEASES[4])).until(names::RELEASES[4]),
    unconverted(|subject| names::before(subject, names::RELEASES[5])).until(names::RELEASES[5]),
    unconverted(|subject| names::before(subject, names::RELEASES[6])).until(names::RELEASES[6]),
    unconverted(|subject| names::before(subject, names::RELEASES[7])).until(names::RELEASES[7]),
    Rule::new(
        "model",
        Effect::Unknown,
        "nothing tells which model they are of, and whether it has a converter for their names",
        BASE,
        |subject| {
            let known = !subject.models.is_empty();
            if known { None } else { subject.modules(|_| true) }
        },
    ),
    Rule::new(
        "base",
        Effect::Ignored,
        "the base has no weight of this name and shape",
        BASE,
        |subject| {
            let own = subject.base.is_some_and(Base::is_diffusers) && is_own(subject);
            let lost: Vec<&str> =
                subject.unplaced().iter().map(|module| module.name.as_str()).collect();
            if own { named(lost).or_else(|| misfits(subject)) } else { misfits(subject) }
        },
    ),
];

fn is_own(subject: &Subject<'_>) -> bool {
    subject.adapter.convention.name == "diffusers"
}

fn has_dora_scale(subject: &Subject<'_>) -> bool {
    subject.adapter.file.names().any(|name| name.ends_with(".dora_scale"))
}

/// What it does not load; LoKr it does for two models.
fn other_families(subject: &Subject<'_>) -> Found {
    let taken = ["flux2", "z_image"];
    let lokr = model(subject).is_some_and(|model| taken.contains(&model));
    subject.modules(|module| match module.family {
        "lora" | "dora" => false,
        "lokr" => !lokr,
        _ => true,
    })
}

fn lokr(subject: &Subject<'_>) -> Found {
    subject.modules(|module| module.family == "lokr")
}

/// What replaces the base's, but for the norms of control LoRAs.
fn ignored(subject: &Subject<'_>) -> Found {
    let control = ["bfl", "diffusers"].contains(&subject.adapter.convention.name);
    if control { None } else { replaced(subject) }
}

/// Names that releases before do not convert.
const fn unconverted(finds: fn(&Subject<'_>) -> Found) -> Rule {
    let says = "this release does not convert the names of this model, and passes over all of them";
    Rule::new("names", Effect::Ignored, says, BASE, finds).converts()
}
