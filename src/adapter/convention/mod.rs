//! Key grammars: how an adapter file spells which factor of which module a tensor is.
//!
//! One file a grammar, listed once in [`CONVENTIONS`]. Law: `parse(format(key)) == key` for every key
//! that a name was read as; of any other key [`Convention::spell`] says whether it has a name.

mod bfl;
mod comfyui;
mod diffusers;
mod gguf;
pub mod gguf_names;
mod kohya;
mod mlx;
mod peft;
mod suffix;
mod tensors;
mod xlabs;

pub(crate) use diffusers::split_component;
pub(crate) use peft::respelled;

/// What a tensor is to its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A, rank × in.
    Down,
    /// B, out × rank.
    Up,
    /// What is added to the base's bias, times the scale.
    UpBias,
    /// A of an embedding, rank × entries.
    EmbeddingDown,
    /// B of an embedding, dim × rank.
    EmbeddingUp,
    /// DoRA's magnitude, one value an output.
    Magnitude,
    /// The alpha that scale = alpha / rank is made of.
    Alpha,
    /// Rows that replace rows of an embedding.
    TokenRows,
    /// A weight that replaces the base's.
    Weight,
    /// A bias that replaces the base's.
    Bias,
    /// A tensor of a family beside LoRA, by its name there (`hada_w1_a`).
    Named(&'static str),
    /// A copy of what the base had; carries nothing.
    Original,
    /// A tensor of a family that is not applied, named by [`foreign_family`].
    Foreign,
}

/// A parsed key: the module's name in the convention's own form, and the tensor's part in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Dotted path, or flattened name where the convention has no path.
    pub module: String,
    /// Its part.
    pub part: Part,
}

/// How scales are known when no tensor or config says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingAlpha {
    /// The scale is 1.
    One,
    /// It cannot be known: the config says it, and is needed.
    Unknown,
}

/// Where a writer puts scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalePlace {
    /// An alpha tensor beside each module's factors.
    Tensor,
    /// A config or header that can name modules.
    Patterns,
    /// One number for all modules.
    Uniform,
}

/// How modules are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Paths of the model as transformers knows it.
    Dotted,
    /// A component (`unet`, `text_encoder`), then a path of the model as diffusers knows it.
    Component,
    /// A root (`diffusion_model`), then a path of the model as its checkpoint stores it.
    Checkpoint,
    /// A prefix (`lora_unet_`), then a path whose dots became underscores.
    Flattened,
    /// llama.cpp's own names.
    Gguf,
}

/// What a writer makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A directory of `adapter_config.json` and this file.
    Directory(&'static str),
    /// One file with this ending.
    File(&'static str),
    /// Nothing: the grammar is only read.
    Never,
}

/// One key grammar.
#[derive(Debug)]
pub struct Convention {
    /// Its name in `--convention` and in reports.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// What a missing alpha means.
    pub missing_alpha: MissingAlpha,
    /// Where scales are written.
    pub scale: ScalePlace,
    /// How modules are called.
    pub names: Names,
    /// What is written.
    pub output: Output,
    /// Splits a tensor's name; `None` if the grammar does not know it.
    pub parse: fn(&str) -> Option<Key>,
    /// Spells a key; `None` if the grammar has no way to. [`Convention::spell`] is what writers ask.
    pub format: fn(&Key) -> Option<String>,
    /// Whether a file with such a key is of this convention.
    pub recognises: fn(&str) -> bool,
}

impl Convention {
    /// Spells a key; `None` if the grammar has no way to, or would read what it wrote as another key.
    pub fn spell(&self, key: &Key) -> Option<String> {
        (self.format)(key).filter(|name| (self.parse)(name).as_ref() == Some(key))
    }
}

/// All conventions; the first that recognises a file reads it.
pub static CONVENTIONS: [&Convention; 8] = [
    &peft::CONVENTION,
    &gguf::CONVENTION,
    &mlx::CONVENTION,
    &xlabs::CONVENTION,
    &bfl::CONVENTION,
    &comfyui::CONVENTION,
    &diffusers::CONVENTION,
    &kohya::CONVENTION,
];

/// The conventions' names, for messages: of all, or of those that can be written.
pub fn names(written: bool) -> String {
    let shown = CONVENTIONS.iter().filter(|c| !written || c.output != Output::Never);
    shown.map(|convention| convention.name).collect::<Vec<_>>().join(", ")
}

/// The convention of this name.
pub fn by_name(name: &str) -> Option<&'static Convention> {
    CONVENTIONS.iter().copied().find(|convention| convention.name == name)
}

/// PEFT's convention, which its config file implies.
pub fn peft() -> &'static Convention {
    &peft::CONVENTION
}

/// MLX's convention, which its config file implies.
pub fn mlx() -> &'static Convention {
    &mlx::CONVENTION
}

/// GGUF's convention, which its container implies.
pub fn gguf() -> &'static Convention {
    &gguf::CONVENTION
}

/// diffusers' convention, which its entry of the header implies.
pub fn diffusers() -> &'static Convention {
    &diffusers::CONVENTION
}

/// The family a tensor's last name parts belong to, where it is one that is not applied.
pub fn foreign_family(key: &str) -> Option<&'static str> {
    const FAMILIES: [(&str, &str); 10] = [
        ("lora_diag", "KaSA"),
        ("oft_r", "old OFT"),
        ("oft_embedding_R", "OFT embedding"),
        ("vblora_", "VB-LoRA (of the largest logits alone)"),
        ("fourierft_", "FourierFT"),
        ("shira_", "SHiRA"),
        ("lokr_t1", "LoKr with a first core"),
        ("set_weight", "set-weight patch"),
        ("reshape_weight", "reshaping patch"),
        ("bias_indices", "sparse-bias"),
    ];
    key.split('.').find_map(|part| {
        let family = FAMILIES.iter().find(|(start, _)| part.starts_with(start));
        family.map(|(_, family)| *family)
    })
}

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
