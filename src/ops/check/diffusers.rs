//! diffusers (`loaders/lora_base.py`, `loaders/lora_conversion_utils.py`): LoRA, through PEFT.

use super::{Rule, Severity, Target, other_families, replaced};

pub(super) static TARGET: Target = Target {
    name: "diffusers",
    reads: &["diffusers", "kohya", "comfyui", "xlabs"],
    convert: "--for diffusers --reference BASE",
    rules: &[
        Rule {
            severity: Severity::Breaks,
            says: "it loads LoRA only; converting makes factors where that is exact",
            finds: other_families,
        },
        Rule {
            severity: Severity::Changes,
            says: "it ignores tensors that replace the base's",
            finds: replaced,
        },
    ],
};
