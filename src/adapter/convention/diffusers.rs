//! diffusers' `pytorch_lora_weights.safetensors`: `unet.<path>.lora_A.weight`, one file for all
//! components of a pipeline (diffusers `loaders/lora_base.py`), and the older spellings of
//! `utils/state_dict_utils.py`: attention processors (`attn1.processor.to_q_lora.down.weight`) and
//! `lora_linear_layer`. The oldest files have a U-Net's processors alone, and name no component.
//!
//! Scales are in the header's `lora_adapter_metadata`; without it they are 1.

use super::{Convention, Key, MissingAlpha, Names, Output, Part, ScalePlace, suffix};

pub(super) static CONVENTION: Convention = Convention {
    name: "diffusers",
    summary: "single file, a component and a dotted path, scales in the header",
    missing_alpha: MissingAlpha::One,
    scale: ScalePlace::Patterns,
    names: Names::Component,
    output: Output::File("safetensors"),
    parse,
    format,
    recognises,
};

/// Components of pipelines that carry adapters.
pub(super) const COMPONENTS: [&str; 9] = [
    "unet",
    "transformer",
    "transformer_2",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "controlnet",
    "prior",
    "connectors",
];

/// The component that a module's name begins with, and the path below it.
pub(crate) fn split_component(module: &str) -> Option<(&str, &str)> {
    module.split_once('.').filter(|(component, _)| COMPONENTS.contains(component))
}

/// Norms that its loaders put in the place of a transformer's own (diffusers `loaders/lora_pipeline.py`,
/// `_control_lora_supported_norm_keys`).
const NORMS: [&str; 4] = [".norm_q", ".norm_k", ".norm_added_q", ".norm_added_k"];

fn is_norm(module: &str) -> bool {
    module.starts_with("transformer.") && NORMS.iter().any(|norm| module.ends_with(norm))
}

/// Whether a name is of the oldest files, which begin with a block of the U-Net.
fn is_oldest(key: &str) -> bool {
    const BLOCKS: [&str; 3] = ["down_blocks.", "mid_block.", "up_blocks."];
    BLOCKS.iter().any(|block| key.starts_with(block)) && key.contains(".processor.")
}

fn parse(key: &str) -> Option<Key> {
    if let Some(module) = key.strip_suffix(".weight").filter(|module| is_norm(module)) {
        return Some(Key { module: module.to_owned(), part: Part::Weight });
    }
    let (module, part) = suffix::split(key)?;
    Some(Key { module: modern(module), part })
}

/// What older files call the projections of text encoders.
const ENCODER: [(&str, &str); 4] =
    [("to_q", "q_proj"), ("to_k", "k_proj"), ("to_v", "v_proj"), ("to_out", "out_proj")];

/// A module's name as diffusers has it now; a name that begins with no component of a pipeline as it is.
pub(super) fn modern(module: &str) -> String {
    let mut module = match is_oldest(module) {
        true => format!("unet.{module}"),
        false => module.to_owned(),
    };
    while let Some(newer) = split_component(&module).and_then(|_| newer(&module)) {
        module = newer;
    }
    module
}

/// Attention processors are no modules of the model: `attn1.processor.to_out` is `attn1.to_out.0`.
fn newer(module: &str) -> Option<String> {
    if module.starts_with("text_encoder")
        && let Some((attention, name)) = module.rsplit_once(".self_attn.")
        && let Some((_, own)) = ENCODER.iter().find(|(old, _)| *old == name)
    {
        return Some(format!("{attention}.self_attn.{own}"));
    }
    let (attention, name) = module.rsplit_once(".processor.")?;
    let name = if name == "to_out" { "to_out.0" } else { name };
    Some(format!("{attention}.{name}"))
}

fn format(key: &Key) -> Option<String> {
    let ending = match key.part {
        Part::Down => "lora_A.weight",
        Part::Up => "lora_B.weight",
        Part::UpBias => "lora_B.bias",
        Part::Magnitude => "lora_magnitude_vector",
        Part::Weight if is_norm(&key.module) => "weight",
        _ => return None,
    };
    Some(format!("{}.{ending}", key.module))
}

fn recognises(key: &str) -> bool {
    let factor = suffix::split(key).is_some_and(|(_, part)| matches!(part, Part::Down | Part::Up));
    let Some((_, path)) = split_component(key) else { return factor && is_oldest(key) };
    // GPT-2's own root is `transformer` too.
    factor && !path.starts_with("h.") && !path.starts_with("wte")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn older_spellings_are_understood() {
        let q = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
        let out = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0";
        let root = "unet.mid_block.attentions.0.transformer_blocks.0.attn1";
        for (spelled, module) in [
            (format!("{root}.processor.to_q_lora.down.weight"), q),
            (format!("{root}.to_q.lora.down.weight"), q),
            (format!("{root}.to_q.lora_A.weight"), q),
            (format!("{root}.to_q.lora_linear_layer.down.weight"), q),
            (format!("{root}.processor.to_out_lora.down.weight"), out),
            (
                "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight".into(),
                "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
            ),
        ] {
            let key = Key { module: module.to_owned(), part: Part::Down };
            assert_eq!(parse(&spelled), Some(key), "{spelled}");
            assert!(recognises(&spelled), "{spelled}");
            if let Some(oldest) = spelled.strip_prefix("unet.").filter(|name| is_oldest(name)) {
                assert_eq!(parse(oldest), parse(&spelled), "{oldest}");
                assert!(recognises(oldest), "{oldest}");
            }
        }
        let norm = Key { module: "transformer.a.attn.norm_q".into(), part: Part::Weight };
        assert_eq!(format(&norm).and_then(|key| parse(&key)), Some(norm));
        assert!(!recognises("transformer.h.0.attn.c_attn.lora_A.weight"));
        assert!(!recognises("unet.conv_in.weight"));
    }

    proptest! {
        #[test]
        fn parse_undoes_format(
            component in 0usize..COMPONENTS.len(),
            path in prop::collection::vec("[a-z][a-z0-9_]{1,8}|[0-9]{1,2}", 1..6),
            index in 0usize..4,
        ) {
            prop_assume!(!path.iter().any(|part| part == "processor"));
            let part = [Part::Down, Part::Up, Part::UpBias, Part::Magnitude][index];
            let key = Key { module: format!("{}.{}", COMPONENTS[component], path.join(".")), part };
            let text = format(&key).expect("spelled");
            prop_assert_eq!(parse(&text), Some(key));
        }

        #[test]
        fn no_key_panics(text in "\\PC{0,40}|([a-z_.]|lora_A|unet|processor|\\.){0,12}") {
            let _ = (parse(&text), recognises(&text));
        }
    }
}
