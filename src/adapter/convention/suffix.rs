//! The spellings of one low-rank factor that files in circulation use. The mathematics is the same.

use super::{Part, tensors};

/// (ending, part); the first that fits is taken. ComfyUI's list, `comfy/weight_adapter/lora.py`.
const SPELLINGS: [(&str, Part); 25] = [
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
    // ai-toolkit's.
    (".magnitude", Part::Magnitude),
    (".alpha", Part::Alpha),
];

/// Prefixes of flattened names, whose `weight` is no base's tensor.
const FLATTENED: [&str; 3] = ["lora_", "lycoris_", "oft_"];

/// Splits a key into its module and the part that its ending says.
pub(super) fn split(key: &str) -> Option<(&str, Part)> {
    let of = |ending: &str| {
        let module = key.strip_suffix(ending)?;
        (!module.is_empty()).then_some(module)
    };
    let low_rank = SPELLINGS.iter().find_map(|(ending, part)| Some((of(ending)?, *part)));
    low_rank
        .or_else(|| {
            tensors::KOHYA.iter().find_map(|(name, ending)| {
                let module = of(ending)?.strip_suffix('.').filter(|module| !module.is_empty())?;
                Some((module, Part::Named(name)))
            })
        })
        .or_else(|| {
            let module = of(".weight")?;
            let flat = !module.contains('.') && FLATTENED.iter().any(|p| module.starts_with(p));
            flat.then_some((module, Part::Named(tensors::IA3_WEIGHT)))
        })
}
