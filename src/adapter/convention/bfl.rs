//! Black Forest Labs' control LoRAs for FLUX.1 (Depth, Canny): `double_blocks.0.img_attn.qkv.lora_A.weight`,
//! the checkpoint's own names without a root, biases of B, and norms that replace the base's
//! (`double_blocks.0.img_attn.norm.query_norm.scale`). The scale is 1 (ComfyUI `comfy/lora_convert.py`,
//! `convert_lora_bfl_control`; diffusers `_convert_bfl_flux_control_lora_to_diffusers`).
//!
//! Their `img_in` has more inputs than the base's, which the control image goes through.

use super::definition::{Convention, Holds, Hooks, Names, ScalePlace};
use super::summary;
use crate::adapter::key::{Key, MissingAlpha, Part};
use crate::adapter::module::Dialect;
use crate::adapter::new_adapter::Output;

pub(super) static CONVENTION: Convention = Convention {
    name: "bfl",
    summary: "Black Forest Labs' control LoRAs for FLUX.1; read only",
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

const ENDINGS: [(&str, Part); 3] =
    [(".lora_A.weight", Part::Down), (".lora_B.weight", Part::Up), (".lora_B.bias", Part::UpBias)];

/// How a norm's weight is called; its name stays whole, as no other ending tells it.
const NORM: &str = "_norm.scale";

fn parse(key: &str) -> Option<Key> {
    if is_norm(key) {
        return Some(Key { module: key.to_owned(), part: Part::Weight });
    }
    let (module, part) =
        ENDINGS.iter().find_map(|(ending, part)| Some((key.strip_suffix(ending)?, *part)))?;
    (!module.is_empty()).then(|| Key { module: module.to_owned(), part })
}

fn format(key: &Key) -> Option<String> {
    if key.part == Part::Weight {
        return is_norm(&key.module).then(|| key.module.clone());
    }
    let (ending, _) = ENDINGS.iter().find(|(_, part)| *part == key.part)?;
    Some(format!("{}{ending}", key.module))
}

fn is_norm(key: &str) -> bool {
    let block = ["double_blocks.", "single_blocks."].iter().any(|root| key.starts_with(root));
    block && key.ends_with(NORM)
}

/// Without its norms such a file is one of kohya's with dotted names.
fn recognises(key: &str) -> bool {
    is_norm(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_undoes_format() {
        let norm = "single_blocks.3.norm.key_norm.scale";
        for (module, part) in [
            ("img_in", Part::Down),
            ("double_blocks.0.img_attn.qkv", Part::Up),
            ("final_layer.linear", Part::UpBias),
            (norm, Part::Weight),
        ] {
            let key = Key { module: module.to_owned(), part };
            let text = format(&key).expect("spelled");
            assert_eq!(parse(&text), Some(key), "{text}");
        }
        assert!(recognises(norm) && !recognises("img_in.lora_A.weight"));
        assert_eq!(parse("img_in.weight"), None);
    }
}
