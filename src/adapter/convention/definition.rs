//! What a convention is: its grammar, what its files can hold, and what it does beside naming tensors.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::opened::{Config, Opened, ReadOptions};
use crate::adapter::key::{Key, MissingAlpha, Part};
use crate::adapter::module::Dialect;
use crate::adapter::new_adapter::{Container, Described, NewAdapter, Output};
use crate::error::Result;
use crate::format::access::Source;
use crate::format::{Checkpoint, Metadata, Tensor};

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

/// What files of a convention can hold beside plain factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holds {
    /// Tensors that replace the base's, of any module.
    pub replacements: bool,
    /// Families beside LoRA, with the tensors and formulas of one of the two who have them.
    pub families: Option<Dialect>,
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
    /// What else than factors it can hold.
    pub holds: Holds,
    /// Splits a tensor's name; `None` if the grammar does not know it.
    pub parse: fn(&str) -> Option<Key>,
    /// Spells a key; `None` if the grammar has no way to. [`Convention::spell`] is what writers ask.
    pub format: fn(&Key) -> Option<String>,
    /// Whether a file with such a key is of this convention.
    pub recognises: fn(&str) -> bool,
    /// What it does beyond its grammar.
    pub(crate) hooks: Hooks,
}

/// See [`Hooks::open_container`].
type OpenContainer = fn(&Path, Source, &ReadOptions<'_>) -> Result<Opened>;
/// See [`Hooks::stack_of`].
type StackOf = fn(&str) -> Option<(String, usize)>;
/// See [`Hooks::pack`].
type Pack = fn(&mut NewAdapter) -> Result<BTreeMap<String, String>>;
/// See [`Hooks::write_sidecar`].
type WriteSidecar = fn(&NewAdapter, &BTreeMap<String, String>) -> Result<Vec<u8>>;

/// What a convention does beyond its grammar. [`Hooks::PLAIN`] is one safetensors file that says everything in its
/// tensors; a convention names what differs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hooks {
    /// The format of its tensor file.
    pub(crate) container: Container,
    /// Opens a file of another container than safetensors.
    pub(crate) open_container: Option<OpenContainer>,
    /// The stack in which a module of one expert is stored, and the expert's number in it; none where experts are
    /// stored one by one.
    pub(crate) stack_of: Option<StackOf>,
    /// Whether an `adapter_config.json` is one of its own.
    pub(crate) owns_config: fn(&Map<String, Value>) -> bool,
    /// Whether a file beside which its config stands is of the convention, whatever its keys.
    pub(crate) claims: fn(&Checkpoint, &Path) -> Result<bool>,
    /// The header's entry that only its files have.
    pub(crate) header_entry: Option<&'static str>,
    /// Whether a key shows that a file which it recognises is of another convention.
    pub(crate) disowns: fn(&str) -> bool,
    /// Reads what stands beside the tensors, and puts tensors into the orientation and under the names that modules
    /// are computed in.
    pub(crate) open_sidecar: fn(Opened, Option<Config<'_>>, &ReadOptions<'_>) -> Result<Opened>,
    /// Puts modules together that are stored as one. The result has such a module's place in the file, by its name.
    pub(crate) pack: Option<Pack>,
    /// Turns a tensor to the orientation in which it is stored.
    pub(crate) orient: fn(Part, Tensor) -> Tensor,
    /// Entries of the header that describe the modules; a file of another convention does not keep them.
    pub(crate) entries: &'static [&'static str],
    /// Describes the modules in the header.
    pub(crate) describe: fn(&[Described<'_>], &mut Metadata) -> Result<()>,
    /// The config beside the tensors; the map is that of [`Hooks::pack`].
    pub(crate) write_sidecar: Option<WriteSidecar>,
}

impl Hooks {
    /// One safetensors file that says everything in its tensors.
    pub(super) const PLAIN: Self = Self {
        container: Container::Safetensors,
        open_container: None,
        stack_of: None,
        owns_config: |_| false,
        claims: |_, _| Ok(false),
        header_entry: None,
        disowns: |_| false,
        open_sidecar: |opened, _, _| Ok(opened),
        pack: None,
        orient: |_, tensor| tensor,
        entries: &[],
        describe: |_, _| Ok(()),
        write_sidecar: None,
    };
}

impl PartialEq for Convention {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Convention {}

impl Convention {
    /// Spells a key; `None` if the grammar has no way to, or would read what it wrote as another key.
    pub fn spell(&self, key: &Key) -> Option<String> {
        (self.format)(key).filter(|name| (self.parse)(name).as_ref() == Some(key))
    }

    /// Where a module of one expert is stored, where the convention has a layer's experts in stacks: the stack's
    /// name, and the expert's number in it.
    pub(crate) fn stack_of(&self, module: &str) -> Option<(String, usize)> {
        self.hooks.stack_of.and_then(|stack_of| stack_of(module))
    }

    /// Whether it has a layer's experts in stacks.
    pub(crate) fn has_stacks(&self) -> bool {
        self.hooks.stack_of.is_some()
    }
}
