//! Single files of kohya's scripts, A1111, ComfyUI and their relatives: `<module>.lora_down.weight`,
//! `.lora_up.weight`, `.alpha`, in any of the spellings of [`suffix`].
//!
//! The module is flattened (`lora_unet_mid_block_attn1_to_q`), which cannot be undone from the name:
//! it is resolved by flattening the base's names. Some writers keep dotted paths, of a pipeline's
//! components too; all are read.

use super::definition::{Convention, Holds, Hooks, Names, ScalePlace};
use super::{diffusers, suffix, summary, tensors};
use crate::adapter::key::{Key, MissingAlpha, Part, foreign_family};
use crate::adapter::module::Dialect;
use crate::adapter::new_adapter::Output;

pub(super) static CONVENTION: Convention = Convention {
    name: "kohya",
    summary: "single file, flattened or dotted names, alpha as a tensor",
    missing_alpha: MissingAlpha::One,
    scale: ScalePlace::Tensor,
    names: Names::Flattened,
    output: Output::File("safetensors"),
    holds: Holds { replacements: false, families: Some(Dialect::Lycoris) },
    parse,
    format,
    recognises,
    hooks: Hooks { entries: summary::ENTRIES, describe: summary::describe, ..Hooks::PLAIN },
};

pub(super) fn parse(key: &str) -> Option<Key> {
    if let Some((module, part)) = suffix::split(key) {
        return Some(Key { module: diffusers::modern(module), part });
    }
    foreign_family(key)?;
    let module = key.split_once('.').map_or(key, |(module, _)| module);
    Some(Key { module: module.to_owned(), part: Part::Foreign })
}

pub(super) fn format(key: &Key) -> Option<String> {
    let ending = match key.part {
        Part::Down => "lora_down.weight",
        Part::Up => "lora_up.weight",
        Part::UpBias => "lora_up.bias",
        Part::Magnitude => "lora_magnitude_vector",
        Part::Alpha => "alpha",
        Part::Named(tensors::IA3_WEIGHT) => "weight",
        Part::Named(name) => tensors::ending(tensors::KOHYA, name)?,
        _ => return None,
    };
    Some(format!("{}.{ending}", key.module))
}

pub(super) fn recognises(key: &str) -> bool {
    // An alpha or a bias alone may stand in any file.
    let is_kohya = |part| match part {
        Part::Down | Part::Up => true,
        Part::Named(name) => name != tensors::IA3_WEIGHT,
        _ => false,
    };
    suffix::split(key).is_some_and(|(_, part)| is_kohya(part)) || foreign_family(key).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_understood() {
        let down = [
            "m.lora_down.weight",
            "m_lora.down.weight",
            "m.lora_A.weight",
            "m.lora.down.weight",
            "m.lora_A",
            "m.lora_linear_layer.down.weight",
            "m.lora_A.default.weight",
            "m.lora_down",
        ];
        for key in down {
            assert_eq!(parse(key), Some(Key { module: "m".into(), part: Part::Down }), "{key}");
        }
        assert_eq!(parse("m.alpha"), Some(Key { module: "m".into(), part: Part::Alpha }));
        let named = |key: &str| parse(key).map(|key| key.part);
        assert_eq!(named("m.hada_w1_a"), Some(Part::Named("hada_w1_a")));
        assert_eq!(named("lora_unet_m.a1.weight"), Some(Part::Named("a1")));
        assert_eq!(named("lycoris_m.weight"), Some(Part::Named(tensors::IA3_WEIGHT)));
        assert_eq!(named("m.set_weight"), Some(Part::Foreign));
        assert_eq!(parse("model.embed.weight"), None);
        assert_eq!(parse(".lora_down.weight"), None);
    }

    #[test]
    fn parse_undoes_format() {
        let parts = [Part::Down, Part::Up, Part::UpBias, Part::Magnitude, Part::Alpha];
        let named = tensors::KOHYA.iter().map(|(name, _)| Part::Named(name));
        let check = |module: &str, part| {
            let key = Key { module: module.into(), part };
            let text = format(&key).expect("spelled");
            assert_eq!(parse(&text), Some(key), "{text}");
        };
        for part in parts.into_iter().chain(named) {
            for module in ["lora_unet_a_b", "a.b.0.c", "x"] {
                check(module, part);
            }
        }
        check("lycoris_a_b", Part::Named(tensors::IA3_WEIGHT));
    }
}
