//! InvokeAI (`invokeai/backend/model_manager/configs/lora.py`, `backend/patches`), read at 6.14.2: single
//! files, whose model it decides when they are installed.

use super::{Field, Program, Takes, nothing};
use crate::adapter::convention::ScalePlace;
use crate::ops::check::place::Found;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::subject::{Subject, whole};

pub(super) static PROGRAM: Program = Program {
    name: "invokeai",
    aliases: &["invoke"],
    version: "6.14.2",
    oldest: "6.14",
    field: Field::Image,
    reads: &["kohya", "diffusers", "comfyui", "xlabs", "bfl"],
    converts: &[],
    takes: Takes::convention(&["kohya"]),
    needs: nothing,
    rules: &RULES,
};

const PROBE: &str = "backend/model_manager/configs/lora.py";
const LAYERS: &str = "backend/patches/layers";

/// Models that it has a probe for.
const MODELS: [&str; 7] = ["unet", "clip", "flux", "lumina", "qwen_image", "krea2", "wan"];

static RULES: [Rule; 4] = [
    Rule::new(
        "model",
        Effect::Refused,
        "it has no probe for this model, and does not install the file (NotAMatch)",
        PROBE,
        |subject| {
            let known = MODELS.iter().any(|model| subject.models.contains(model));
            whole(!subject.models.is_empty() && !known)
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
        "scale",
        Effect::ScaledWrongly,
        "it reads no scale but alpha tensors, so these modules get scale 1",
        LAYERS,
        unscaled,
    )
    .converts(),
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

fn unscaled(subject: &Subject<'_>) -> Found {
    let elsewhere = subject.adapter.convention.scale != ScalePlace::Tensor;
    if elsewhere { subject.scaled(|_| 1.0) } else { None }
}
