//! XLabs' Flux files: `double_blocks.0.processor.qkv_lora1.down.weight`, where 1 is the image's stream
//! and 2 the text's (ComfyUI `comfy/lora_convert.py`, `convert_lora_bfl_control` and its neighbours;
//! diffusers `_convert_xlabs_flux_lora_to_diffusers`). Modules get the checkpoint's names.

use super::definition::{Convention, Holds, Hooks, Names, ScalePlace};
use super::summary;
use crate::adapter::key::{Key, MissingAlpha, Part};
use crate::adapter::module::Dialect;
use crate::adapter::new_adapter::Output;

pub(super) static CONVENTION: Convention = Convention {
    name: "xlabs",
    summary: "XLabs' Flux files; read only",
    missing_alpha: MissingAlpha::One,
    scale: ScalePlace::Tensor,
    names: Names::Checkpoint,
    output: Output::Never,
    holds: Holds { replacements: false, families: Some(Dialect::Lycoris) },
    parse,
    format,
    recognises,
    hooks: Hooks { entries: summary::ENTRIES, describe: summary::describe, ..Hooks::PLAIN },
};

/// (root, XLabs' name, the checkpoint's).
const MODULES: [(&str, &str, &str); 6] = [
    ("double_blocks.", "processor.qkv_lora1", "img_attn.qkv"),
    ("double_blocks.", "processor.proj_lora1", "img_attn.proj"),
    ("double_blocks.", "processor.qkv_lora2", "txt_attn.qkv"),
    ("double_blocks.", "processor.proj_lora2", "txt_attn.proj"),
    ("single_blocks.", "processor.qkv_lora", "linear1_qkv"),
    ("single_blocks.", "processor.proj_lora", "linear2"),
];

const ENDINGS: [(&str, Part); 2] = [(".down.weight", Part::Down), (".up.weight", Part::Up)];

/// What ComfyUI puts before such names.
const ROOT: &str = "diffusion_model.";

fn parse(key: &str) -> Option<Key> {
    let key = key.strip_prefix(ROOT).unwrap_or(key);
    let (path, part) =
        ENDINGS.iter().find_map(|(ending, part)| Some((key.strip_suffix(ending)?, *part)))?;
    MODULES.iter().find_map(|(root, theirs, ours)| {
        let (number, name) = path.strip_prefix(root)?.split_once('.')?;
        let counted = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        (counted && name == *theirs).then(|| Key { module: format!("{root}{number}.{ours}"), part })
    })
}

fn format(key: &Key) -> Option<String> {
    let (ending, _) = ENDINGS.iter().find(|(_, part)| *part == key.part)?;
    MODULES.iter().find_map(|(root, theirs, ours)| {
        let (number, name) = key.module.strip_prefix(root)?.split_once('.')?;
        (name == *ours).then(|| format!("{root}{number}.{theirs}{ending}"))
    })
}

fn recognises(key: &str) -> bool {
    parse(key).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_undoes_format() {
        for (root, _, ours) in MODULES {
            for part in [Part::Down, Part::Up] {
                let key = Key { module: format!("{root}7.{ours}"), part };
                let text = format(&key).expect("spelled");
                assert_eq!(parse(&text), Some(key), "{text}");
            }
        }
        assert_eq!(parse("double_blocks.x.processor.qkv_lora1.down.weight"), None);
        assert_eq!(parse("double_blocks.0.processor.qkv_lora1.weight"), None);
    }
}
