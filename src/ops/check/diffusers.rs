//! diffusers (`loaders/lora_base.py`, `loaders/lora_conversion_utils.py`): LoRA, through PEFT.

use super::{Rule, Severity, Target, other_families, replaced};
use crate::adapter::Adapter;

pub(super) static TARGET: Target = Target {
    name: "diffusers",
    reads: &["diffusers", "kohya", "comfyui", "xlabs", "bfl"],
    convert: "--for diffusers --reference BASE",
    rules: &[
        Rule {
            severity: Severity::Breaks,
            says: "it loads LoRA only; converting makes factors where that is exact",
            mends: true,
            finds: other_families,
        },
        Rule {
            severity: Severity::Changes,
            says: "it ignores tensors that replace the base's",
            mends: false,
            finds: ignored,
        },
    ],
};

/// What replaces the base's, but for the norms of control LoRAs.
fn ignored(adapter: &Adapter) -> Vec<String> {
    let control = ["bfl", "diffusers"].contains(&adapter.convention.name);
    if control { Vec::new() } else { replaced(adapter) }
}
