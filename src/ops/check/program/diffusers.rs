//! diffusers (`loaders/lora_base.py`, `loaders/lora_conversion_utils.py`), read at 0.33 to 0.42: LoRA,
//! through PEFT, and LoKr for two models.

use super::{Field, Program, Takes, nothing};
use crate::adapter::convention::ScalePlace;
use crate::adapter::module::Module;
use crate::ops::check::base::Base;
use crate::ops::check::place::Found;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{decomposed, misfits, replaced};
use crate::ops::check::subject::{Subject, named, some};

pub(super) static PROGRAM: Program = Program {
    name: "diffusers",
    aliases: &[],
    version: "0.42.0",
    oldest: "0.33",
    field: Field::Image,
    reads: &["diffusers", "kohya", "comfyui", "xlabs", "bfl"],
    converts: &[],
    takes: Takes::convention(&["diffusers"]),
    needs: nothing,
    rules: &RULES,
};

const CONVERT: &str = "loaders/lora_conversion_utils.py";
const BASE: &str = "loaders/lora_base.py";

/// Models, by the first release whose mixin converts names that are not diffusers' own.
const SINCE: [(&str, &str); 4] =
    [("qwen_image", "0.35.2"), ("lumina", "0.36"), ("flux2", "0.36"), ("ltx2", "0.37")];

static RULES: [Rule; 12] = [
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only; converting makes factors where that is exact",
        BASE,
        other_families,
    )
    .converts(),
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
        dropped_alphas,
    )
    .converts(),
    Rule::new(
        "alpha-keys",
        Effect::Refused,
        "its converter refuses what it does not use up, here the alphas",
        CONVERT,
        |subject| {
            let strict = ["flux2", "krea2"].iter().any(|model| subject.models.contains(model));
            let published = subject.adapter.convention.name == "comfyui" && has_lora_a(subject);
            let alphas = |name: &&str| name.ends_with(".alpha");
            if strict && published { named(subject.adapter.file.names().filter(alphas)) } else { None }
        },
    )
    .converts(),
    Rule::new(
        "swapped-rows",
        Effect::LandsElsewhere,
        "its LoRA converter leaves shift and scale in the published order, its model has them the other way round",
        "loaders/lora_conversion_utils.py, _convert_non_diffusers_flux2_lora_to_diffusers",
        |subject| {
            let flux2 = subject.models.contains("flux2") && !is_own(subject);
            let last = |module: &Module| {
                let name = module.name.replace('_', ".");
                name.ends_with("final.layer.adaLN.modulation.1")
            };
            if flux2 { subject.modules(last) } else { None }
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
        "this release does not convert the names of this model, and passes over all of them",
        BASE,
        |subject| newer(subject, "qwen_image"),
    )
    .until(SINCE[0].1)
    .converts(),
    Rule::new(
        "names",
        Effect::Ignored,
        "this release does not convert the names of this model, and passes over all of them",
        BASE,
        |subject| newer(subject, "flux2").or_else(|| newer(subject, "lumina")),
    )
    .until(SINCE[2].1)
    .converts(),
    Rule::new(
        "names",
        Effect::Ignored,
        "this release does not convert the names of this model, and passes over all of them",
        BASE,
        |subject| newer(subject, "ltx2"),
    )
    .until(SINCE[3].1)
    .converts(),
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

fn has_lora_a(subject: &Subject<'_>) -> bool {
    subject.adapter.file.names().any(|name| name.contains(".lora_A."))
}

fn has_dora_scale(subject: &Subject<'_>) -> bool {
    subject.adapter.file.names().any(|name| name.ends_with(".dora_scale"))
}

/// What it does not load; LoKr it does for two models.
fn other_families(subject: &Subject<'_>) -> Found {
    let lokr = ["flux2", "lumina"].iter().any(|model| subject.models.contains(model));
    subject.modules(|module| match module.family {
        "lora" | "dora" => false,
        "lokr" => !lokr,
        _ => true,
    })
}

/// What replaces the base's, but for the norms of control LoRAs.
fn ignored(subject: &Subject<'_>) -> Found {
    let control = ["bfl", "diffusers"].contains(&subject.adapter.convention.name);
    if control { None } else { replaced(subject) }
}

/// Modules with an alpha tensor beside `lora_A` and `lora_B`, of models whose converters drop it.
fn dropped_alphas(subject: &Subject<'_>) -> Found {
    const MODELS: [&str; 8] =
        ["ltx_video", "ltx2", "cosmos1", "cosmos2", "anima", "ace_step", "wan", "flux2"];
    let drops = MODELS.iter().any(|model| subject.models.contains(model));
    let tensors = subject.adapter.convention.scale == ScalePlace::Tensor;
    let published =
        subject.models.contains("flux2") && subject.adapter.convention.name == "comfyui";
    if !drops || !tensors || !has_lora_a(subject) || published {
        return None;
    }
    subject.scaled(|_| 1.0)
}

/// Modules of a model in names that are not diffusers' own.
fn newer(subject: &Subject<'_>, model: &str) -> Found {
    let foreign = subject.models.contains(model) && !is_own(subject);
    let all = subject.adapter.modules.iter().map(|module| module.name.as_str().into());
    if foreign { some(all.collect()) } else { None }
}
