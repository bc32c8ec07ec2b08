//! The spellings of one low-rank factor that files in circulation use. The mathematics is the same.

use super::Part;

/// (ending, part); the first that fits is taken. ComfyUI's list, `comfy/weight_adapter/lora.py`.
const SPELLINGS: [(&str, Part); 24] = [
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    (".lora_A.default.weight", Part::Down),
    (".lora_B.default.weight", Part::Up),
    (".lora_down", Part::Down),
    (".lora_up", Part::Up),
    (".lora_A", Part::Down),
    (".lora_B", Part::Up),
    ("_lora.down", Part::Down),
    ("_lora.up", Part::Up),
    (".lora.down", Part::Down),
    (".lora.up", Part::Up),
    (".lora_B.bias", Part::UpBias),
    (".lora_up.bias", Part::UpBias),
    (".lora_magnitude_vector", Part::Magnitude),
    (".alpha", Part::Alpha),
];

/// Splits a key into its module and the part that its ending says.
pub(super) fn split(key: &str) -> Option<(&str, Part)> {
    SPELLINGS.iter().find_map(|(ending, part)| {
        let module = key.strip_suffix(ending)?;
        (!module.is_empty()).then_some((module, *part))
    })
}
