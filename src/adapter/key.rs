//! A parsed key of an adapter's file: which part of which module a tensor is. All conventions parse to this.

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

/// Components of pipelines that carry adapters.
pub(crate) const COMPONENTS: [&str; 10] = [
    "unet",
    "transformer",
    "transformer_2",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "controlnet",
    "prior",
    "connectors",
    "text_conditioner",
];

/// The component that a module's name begins with, and the path below it.
pub(crate) fn split_component(module: &str) -> Option<(&str, &str)> {
    module.split_once('.').filter(|(component, _)| COMPONENTS.contains(component))
}

/// The family a tensor's last name parts belong to, where it is one that is not applied.
pub fn foreign_family(key: &str) -> Option<&'static str> {
    const FAMILIES: [(&str, &str); 9] = [
        ("lora_diag", "KaSA"),
        ("oft_r", "old OFT"),
        ("oft_embedding_R", "OFT embedding"),
        ("vblora_", "VB-LoRA (of the largest logits alone)"),
        (
            "tinylora_v",
            "TinyLoRA (of several vectors: which module has which depends on the model's layers)",
        ),
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
