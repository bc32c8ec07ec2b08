//! Forge (`backend/patcher/lora.py`, `packages_3rdparty/comfyui_lora_collection`), read at dfdcbab6 (2025-06):
//! `ComfyUI`'s code as it was, for fewer models.

use super::readings::model;
use super::{Field, Program, Takes, comfyui, nothing};
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::subject::whole;

pub(super) static PROGRAM: Program = Program {
    name: "forge",
    aliases: &[],
    version: "2025-06",
    oldest: "2025-06",
    field: Field::Image,
    reads: &["kohya", "comfyui", "diffusers", "xlabs", "bfl"],
    converts: &[],
    takes: Takes::convention(&["kohya"]),
    older: &[],
    needs: nothing,
    rules: &[RULES, comfyui::RULES],
};

/// Models that its map of keys has; the branches of SD3 and AuraFlow are commented out.
const MODELS: [&str; 4] = ["unet", "clip", "t5", "flux"];

static RULES: &[Rule] = &[Rule::new(
    "model",
    Effect::Ignored,
    "it maps names of SD 1, SD 2, SDXL and Flux.1 only",
    "packages_3rdparty/comfyui_lora_collection/lora.py, model_lora_keys_unet",
    |subject| whole(model(subject).is_some_and(|model| !MODELS.contains(&model))),
)];
