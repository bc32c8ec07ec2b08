//! Key grammars: how an adapter file spells which factor of which module a tensor is.
//!
//! One file a grammar, listed once in [`CONVENTIONS`]. Law: `parse(format(key)) == key` for every key
//! the grammar can spell.

mod kohya;
mod peft;
mod suffix;
mod tensors;

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

/// One key grammar.
#[derive(Debug)]
pub struct Convention {
    /// Its name in `--convention` and in reports.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// What a missing alpha means.
    pub missing_alpha: MissingAlpha,
    /// Splits a tensor's name; `None` if the grammar does not know it.
    pub parse: fn(&str) -> Option<Key>,
    /// Spells a key; `None` if the grammar has no way to.
    pub format: fn(&Key) -> Option<String>,
    /// Whether a file with such a key is of this convention.
    pub recognises: fn(&str) -> bool,
}

/// All conventions; the first that recognises a file reads it.
pub static CONVENTIONS: [&Convention; 2] = [&peft::CONVENTION, &kohya::CONVENTION];

/// The convention of this name.
pub fn by_name(name: &str) -> Option<&'static Convention> {
    CONVENTIONS.iter().copied().find(|convention| convention.name == name)
}

/// PEFT's convention, which its config file implies.
pub fn peft() -> &'static Convention {
    &peft::CONVENTION
}

/// The family a tensor's last name parts belong to, where it is one that is not applied.
pub fn foreign_family(key: &str) -> Option<&'static str> {
    const FAMILIES: [(&str, &str); 11] = [
        ("lora_diag", "KaSA"),
        ("oft_r", "old OFT"),
        ("oft_embedding_R", "OFT embedding"),
        ("randlora_", "RandLoRA"),
        ("vblora_", "VB-LoRA"),
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
