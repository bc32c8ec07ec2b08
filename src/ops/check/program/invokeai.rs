//! InvokeAI (`invokeai/backend/model_manager/configs/lora.py`, `backend/patches`), read at 6.14.2: single
//! files, whose model it decides when they are installed.

use super::readings::model;
use super::{Field, Program, Takes, nothing};
use crate::ops::check::place::Found;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{adapter_named, biased_factors, unscaled};
use crate::ops::check::subject::{Subject, named, whole};

pub(super) static PROGRAM: Program = Program {
    name: "invokeai",
    aliases: &["invoke"],
    version: "6.14.2",
    oldest: "6.14",
    field: Field::Image,
    reads: &["kohya", "diffusers", "comfyui", "xlabs", "bfl"],
    converts: &[],
    takes: Takes::convention(&["kohya"]),
    older: &[],
    needs: nothing,
    rules: &[RULES],
};

const PROBE: &str = "backend/model_manager/configs/lora.py";
const LAYERS: &str = "backend/patches/layers";

/// Models that it has a probe for.
const MODELS: [&str; 9] =
    ["unet", "clip", "flux", "flux2", "z_image", "qwen_image", "krea2", "anima", "wan"];

static RULES: &[Rule] = &[
    Rule::new(
        "model",
        Effect::Refused,
        "it has no probe for this model, and does not install the file (NotAMatch)",
        PROBE,
        |subject| {
            let known = model(subject).is_none_or(|model| {
                let parts = ["t5", "cosmos"];
                MODELS.contains(&model) || parts.contains(&model)
            });
            whole(!known)
        },
    ),
    Rule::new(
        "model",
        Effect::Unknown,
        "nothing tells which model they are of",
        PROBE,
        |subject| whole(subject.models.is_empty()),
    ),
    Rule::new(
        "stray-keys",
        Effect::Refused,
        "its probe for kohya's files of Flux wants every key to be of a module that it knows",
        PROBE,
        stray_keys,
    ),
    Rule::new(
        "scale",
        Effect::ScaledWrongly,
        "it reads no scale but alpha tensors, so these modules get scale 1",
        LAYERS,
        |subject| if has_strays(subject) { None } else { unscaled(subject) },
    )
    .converts(),
    // Their names with alphas are kohya's, of which it knows the blocks' alone.
    Rule::new(
        "scale",
        Effect::ScaledWrongly,
        "it reads no scale but alpha tensors, so these modules get scale 1",
        LAYERS,
        |subject| if has_strays(subject) { unscaled(subject) } else { None },
    ),
    Rule::new(
        "tensor-names",
        Effect::Ignored,
        "it passes over factors in whose names an adapter's name stands",
        LAYERS,
        adapter_named,
    )
    .converts(),
    Rule::new("bias", Effect::Ignored, "it ignores biases of B", LAYERS, biased_factors),
    Rule::new(
        "family",
        Effect::Refused,
        "it knows LoRA, LoHa, LoKr, IA3, whole differences and norms only",
        LAYERS,
        |subject| {
            let known = ["lora", "dora", "loha", "lokr", "ia3", "full"];
            subject.modules(|module| !known.contains(&module.family))
        },
    )
    .converts(),
];

/// Whether modules of Flux.1 are beside its blocks and text encoders.
fn has_strays(subject: &Subject<'_>) -> bool {
    let known = ["blocks", "lora_te", "text_encoder"];
    let stray = |name: &str| !known.iter().any(|part| name.contains(part));
    let modules = &subject.adapter.modules;
    model(subject) == Some("flux") && modules.iter().any(|module| stray(&module.name))
}

/// Keys of a kohya file of Flux that are of none of its blocks or text encoders.
fn stray_keys(subject: &Subject<'_>) -> Found {
    const STARTS: [&str; 4] =
        ["lora_unet_double_blocks_", "lora_unet_single_blocks_", "lora_te1_", "lora_te2_"];
    let kohya = subject.adapter.convention.name == "kohya" && model(subject) == Some("flux");
    let stray = |name: &&str| !STARTS.iter().any(|start| name.starts_with(start));
    named(subject.adapter.file.names().filter(|name| kohya && stray(name)))
}
