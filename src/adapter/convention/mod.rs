//! Key grammars: how an adapter file spells which factor of which module a tensor is, and what it has beside its
//! tensors.
//!
//! One file a convention, listed once in [`CONVENTIONS`]. What it does beyond its grammar (a config, an entry of the
//! header, another orientation, stacks of experts) are its `Hooks` (`definition.rs`). Law:
//! `parse(format(key)) == key` for every key that a name was read as; of any other key [`Convention::spell`] says
//! whether it has a name.

#[macro_use]
mod registry;

conventions! {
    peft,
    gguf,
    mlx,
    xlabs,
    bfl,
    comfyui,
    diffusers,
    kohya,
}

pub(crate) mod definition;
mod gguf_architectures;
pub mod gguf_names;
pub(crate) mod mlx_classes;
pub(crate) mod opened;
mod peft_config;
mod peft_stacks;
mod shared;
mod suffix;
mod summary;
mod tensors;

pub use definition::{Convention, Holds, Names, ScalePlace};
pub(crate) use gguf::{ARCHITECTURE, reordered};
pub(crate) use mlx::{of_class, one_by_one};
pub(crate) use opened::{Config, Opened, ReadOptions};
pub(crate) use peft::respelled;
pub(crate) use peft_config::text as config_text;
pub use registry::{by_name, computed_for, names, one_file, peft};
pub(crate) use shared::MOST_EXPERTS;

pub(crate) use super::key::split_component;
pub use super::key::{Key, MissingAlpha, Part, foreign_family};
pub use super::new_adapter::Output;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All parts that hold values of a module.
    fn parts() -> Vec<Part> {
        let mut parts = vec![
            Part::Down,
            Part::Up,
            Part::UpBias,
            Part::EmbeddingDown,
            Part::EmbeddingUp,
            Part::Magnitude,
            Part::Alpha,
            Part::TokenRows,
            Part::Weight,
            Part::Bias,
            Part::Named(tensors::IA3_WEIGHT),
        ];
        let names = tensors::PEFT.iter().chain(tensors::KOHYA).map(|(name, _)| *name);
        parts.extend(names.chain(tensors::SHARED.iter().copied()).map(Part::Named));
        parts
    }

    /// Names with the words in which the grammars find meaning, anywhere.
    fn name() -> impl Strategy<Value = String> {
        let word = "base_model|model|module|base_layer|original_module|modules_to_save|token_adapter|\
            trainable_tokens_delta|lora_A|lora_B|lora_a|lora_b|lora_up|lora_down|lora_mid|lora|up|down|m|\
            default|weight|bias|alpha|processor|to_q_lora|qkv_lora1|proj_lora|to_out|self_attn|diff|\
            diff_b|hada_w1_a|lokr_w1|oft_blocks|oft_R|vera_A|vera_lambda_b|on_input|a1|blk|token_embd|\
            embed_tokens|unet|text_encoder|transformer|diffusion_model|double_blocks|single_blocks|\
            lora_unet_x|lycoris_x|lora_magnitude_vector|lora_embedding_A|set_weight|[a-z_]{0,6}|[0-9]{1,2}";
        prop::collection::vec(word, 0..8).prop_map(|words| words.join("."))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_spelled_is_read_as_it_was(module in name(), at in 0..parts().len()) {
            let key = Key { module, part: parts()[at] };
            for convention in CONVENTIONS {
                if let Some(name) = convention.spell(&key) {
                    prop_assert_eq!((convention.parse)(&name), Some(key.clone()));
                }
            }
        }

        #[test]
        fn what_is_read_can_be_written(name in name()) {
            for convention in CONVENTIONS {
                let Some(key) = (convention.parse)(&name) else { continue };
                let Some(again) = (convention.format)(&key) else { continue };
                prop_assert_eq!((convention.parse)(&again), Some(key), "{}: {}", again, name);
            }
        }
    }
}
