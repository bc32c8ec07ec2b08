//! ComfyUI (`comfy/lora.py`, `comfy/weight_adapter/`): single files, alphas as tensors, no config.

use super::{Rule, Severity, Target, modules, replaced};
use crate::adapter::Adapter;
use crate::adapter::convention::ScalePlace;

pub(super) static TARGET: Target = Target {
    name: "comfyui",
    reads: &["comfyui", "kohya", "diffusers", "xlabs", "bfl"],
    convert: "--for comfyui",
    rules: &[
        Rule {
            severity: Severity::Changes,
            says: "it reads no scale but alpha tensors, so these modules get scale 1",
            finds: unscaled,
        },
        Rule {
            severity: Severity::Changes,
            says: "it ignores tensors that replace the base's",
            finds: ignored,
        },
        Rule { severity: Severity::Changes, says: "it ignores IA3 modules", finds: ia3 },
    ],
};

/// What replaces the base's, but for the norms of control LoRAs.
fn ignored(adapter: &Adapter) -> Vec<String> {
    if adapter.convention.name == "bfl" { Vec::new() } else { replaced(adapter) }
}

/// Modules with a scale that only a config or header says.
fn unscaled(adapter: &Adapter) -> Vec<String> {
    let elsewhere = adapter.convention.scale != ScalePlace::Tensor;
    modules(adapter, |module| elsewhere && module.scale.value != 1.0)
}

fn ia3(adapter: &Adapter) -> Vec<String> {
    modules(adapter, |module| module.family == "ia3")
}
