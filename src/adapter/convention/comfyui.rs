//! Single files with the paths of the checkpoint that ComfyUI loads, dots kept:
//! `diffusion_model.blocks.0.attn.qkv.lora_down.weight` (ComfyUI `comfy/lora.py`, the generic names of
//! `model_lora_keys_unet` and `model_lora_keys_clip`). Endings and alphas are kohya's.

use super::definition::{Convention, Holds, Hooks, Names, ScalePlace};
use super::{kohya, summary};
use crate::adapter::key::{Key, MissingAlpha};
use crate::adapter::module::Dialect;
use crate::adapter::new_adapter::Output;

pub(super) static CONVENTION: Convention = Convention {
    name: "comfyui",
    summary: "single file, the checkpoint's dotted paths, alpha as a tensor",
    missing_alpha: MissingAlpha::One,
    scale: ScalePlace::Tensor,
    names: Names::Checkpoint,
    output: Output::File("safetensors"),
    holds: Holds { replacements: false, families: Some(Dialect::Lycoris) },
    parse: kohya::parse,
    format,
    recognises,
    hooks: Hooks { entries: summary::ENTRIES, describe: summary::describe, ..Hooks::PLAIN },
};

/// The roots of what ComfyUI loads.
const ROOTS: [&str; 3] = ["diffusion_model.", "text_encoders.", "text_embedding_projection."];

fn format(key: &Key) -> Option<String> {
    kohya::format(key)
}

fn recognises(key: &str) -> bool {
    ROOTS.iter().any(|root| key.starts_with(root)) && kohya::recognises(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::adapter::key::Part;

    proptest! {
        #[test]
        fn parse_undoes_format(
            path in prop::collection::vec("[a-z][a-z0-9_]{1,8}|[0-9]{1,2}", 1..6),
            index in 0usize..5,
        ) {
            let part = [Part::Down, Part::Up, Part::UpBias, Part::Magnitude, Part::Alpha][index];
            let key = Key { module: format!("diffusion_model.{}.x", path.join(".")), part };
            let text = format(&key).expect("spelled");
            prop_assert_eq!(parse_of(&text), Some(key));
        }

        #[test]
        fn no_key_panics(text in "\\PC{0,40}|([a-z_.]|lora_up|diffusion_model|\\.){0,12}") {
            let _ = (parse_of(&text), recognises(&text));
        }
    }

    fn parse_of(text: &str) -> Option<Key> {
        (CONVENTION.parse)(text)
    }

    #[test]
    fn only_its_own_roots_are_recognised() {
        assert!(recognises("diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight"));
        assert!(recognises("text_encoders.clip_l.transformer.x.q_proj.lora_up.weight"));
        assert!(!recognises("diffusion_model.input_blocks.0.0.weight"));
        assert!(!recognises("lora_unet_x.lora_up.weight"));
    }
}
