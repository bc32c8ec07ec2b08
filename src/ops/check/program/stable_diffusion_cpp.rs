//! stable-diffusion.cpp (`src/lora.hpp`, `src/name_conversion.cpp`), read at 97d29908 (2026-08): names
//! brought to published ones for the models it knows, others by their prefixes.

use std::collections::BTreeSet;

use super::readings::{below, model};
use super::{Field, Program, Takes, nothing};
use crate::adapter::layout;
use crate::ops::check::place::Found;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{
    adapter_named, biased, decomposed, misfits, replaced, unplaced, unscaled,
};
use crate::ops::check::subject::{Subject, whole};

pub(super) static PROGRAM: Program = Program {
    name: "stable-diffusion.cpp",
    aliases: &["sd.cpp", "sd-cpp"],
    version: "2026-08",
    oldest: "2026-08",
    field: Field::Image,
    reads: &["kohya", "comfyui", "diffusers", "xlabs", "bfl"],
    converts: &[],
    takes: Takes::convention(&["comfyui"]),
    older: &[],
    needs: nothing,
    rules: &[RULES],
};

const NAMES: &str = "src/name_conversion.cpp, convert_tensor_name";
const LOAD: &str = "src/lora.hpp, LoraModel";

/// Models whose names it brings to published ones, whatever their layout.
const MODELS: [&str; 10] =
    ["unet", "clip", "t5", "sd3", "flux", "flux2", "z_image", "anima", "krea2", "hunyuan_video"];

/// Prefixes behind which it takes published names of any model.
const PREFIXES: [&str; 6] =
    ["lora_unet_", "lycoris_", "diffusion_model.", "transformer.", "lora_te", "text_encoder"];

static RULES: &[Rule] = &[
    Rule::new(
        "names",
        Effect::Ignored,
        "it takes this model's published names only, behind lora_unet_, lycoris_, diffusion_model. or transformer. (\"Only (n / m) LoRA tensors have been applied\")",
        NAMES,
        other_names,
    )
    .converts(),
    Rule::new(
        "model",
        Effect::Unknown,
        "nothing tells which model they are of, and whether it has their names",
        NAMES,
        |subject| whole(subject.models.is_empty() && subject.base.is_none()),
    ),
    Rule::new(
        "scale",
        Effect::ScaledWrongly,
        "it reads no scale but alpha and scale tensors, so these modules get scale 1",
        LOAD,
        unscaled,
    )
    .converts(),
    Rule::new("dora", Effect::Changed, "it ignores magnitudes (DoRA)", LOAD, decomposed).extracts(),
    Rule::new(
        "family",
        Effect::Ignored,
        "it knows LoRA, LoHa, LoKr and whole differences only; converting makes factors where that is exact",
        LOAD,
        |subject| {
            let known = ["lora", "dora", "loha", "lokr", "full"];
            subject.modules(|module| !known.contains(&module.family))
        },
    )
    .converts(),
    Rule::new(
        "tensor-names",
        Effect::Ignored,
        "it passes over factors in whose names an adapter's name stands",
        LOAD,
        adapter_named,
    )
    .converts(),
    Rule::new("bias", Effect::Ignored, "it ignores biases of B", LOAD, biased),
    Rule::new(
        "replaced",
        Effect::Ignored,
        "it ignores tensors that replace the base's",
        LOAD,
        replaced,
    ),
    Rule::new(
        "base",
        Effect::Ignored,
        "it passes over what the base has no weight of this name and shape for",
        LOAD,
        |subject| unplaced(subject).or_else(|| misfits(subject)),
    ),
];

fn other_names(subject: &Subject<'_>) -> Found {
    let model = model(subject)?;
    if MODELS.contains(&model) {
        return None;
    }
    let diffusers: BTreeSet<&str> = layout::of_one_layout(subject.adapter, false);
    subject.modules(|module| {
        let (prefix, _) = below(subject, module);
        !PREFIXES.contains(&prefix) || diffusers.contains(module.name.as_str())
    })
}
