//! Programs that load adapters: one file each, of what it reads, what it needs written, and its rules.
//! [`PROGRAMS`] is the one list.

mod comfyui;
mod diffusers;
mod invokeai;
mod llama_cpp;
mod lmdeploy;
mod lorax;
mod mlx_lm;
mod ollama;
mod openvino;
mod peft;
mod sglang;
mod spelling;
mod tensorrt_llm;
mod tgi;
mod vllm;
mod vllm_classes;

use super::rule::Rule;
use super::subject::Subject;
use crate::error::{ErrorKind, Result};

pub(in crate::ops) use vllm_classes::is_stacked;

/// What a program's models are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// Language, with towers beside it.
    Language,
    /// Images, video and sound.
    Image,
    /// Anything.
    Any,
}

/// How a program's adapters have a layer's experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Experts {
    /// As the adapter has them.
    AsTheyAre,
    /// One by one.
    Single,
    /// In stacks or one by one, by the class of the base.
    ByClass,
}

/// What has to be written for a program, beyond what its convention says.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Takes {
    /// The convention; of several, that of the adapter if it is among them, else the first.
    pub(in crate::ops) conventions: &'static [&'static str],
    /// One rank and one scale for all modules.
    pub(in crate::ops) uniform: bool,
    /// The scale is 1, whatever the file says.
    pub(in crate::ops) scale_one: bool,
    /// A and B, and nothing beside them.
    pub(in crate::ops) factors_only: bool,
    /// Modules are called as the base's tensors are.
    pub(in crate::ops) base_names: bool,
    /// `target_modules` is a list of last parts of names.
    pub(in crate::ops) leaf_targets: bool,
    /// Projections that are joined at load: where one of a layer is there, all are.
    pub(in crate::ops) complete: &'static [&'static [&'static str]],
    /// How it has experts.
    pub(in crate::ops) experts: Experts,
    /// A GGUF file goes into a directory, with a Modelfile beside it.
    pub(in crate::ops) modelfile: bool,
    /// Ranks and alphas of single modules are read, as `extract` and `resize` write them.
    pub(super) reads_patterns: bool,
}

impl Takes {
    /// Whatever the convention can say.
    const fn convention(conventions: &'static [&'static str]) -> Self {
        Self {
            conventions,
            uniform: false,
            scale_one: false,
            factors_only: false,
            base_names: false,
            leaf_targets: false,
            complete: &[],
            experts: Experts::AsTheyAre,
            modelfile: false,
            reads_patterns: false,
        }
    }

    /// PEFT's directory as servers read it: one rank, one scale, factors under the base's own names.
    const SERVER: Self = Self {
        uniform: true,
        factors_only: true,
        base_names: true,
        experts: Experts::Single,
        ..Self::convention(&["peft"])
    };
}

/// A program that loads adapters.
pub(in crate::ops) struct Program {
    /// Its name in `--for`.
    pub(in crate::ops) name: &'static str,
    /// Other names of it.
    aliases: &'static [&'static str],
    /// The newest version whose source the rules were read from.
    pub(super) version: &'static str,
    /// The oldest; of one before it nothing is known.
    pub(super) oldest: &'static str,
    pub(super) field: Field,
    /// Conventions it reads.
    pub(super) reads: &'static [&'static str],
    /// Conventions that its own converter reads, by whose rules they are judged too.
    pub(super) converts: &'static [&'static str],
    /// What `convert --for` writes.
    pub(in crate::ops) takes: Takes,
    /// Flags that the server needs for this adapter.
    pub(super) needs: fn(&Subject<'_>) -> Vec<String>,
    pub(super) rules: &'static [Rule],
}

/// All programs.
pub(in crate::ops) static PROGRAMS: [&Program; 14] = [
    &vllm::PROGRAM,
    &sglang::PROGRAM,
    &tensorrt_llm::PROGRAM,
    &lmdeploy::PROGRAM,
    &tgi::PROGRAM,
    &lorax::PROGRAM,
    &llama_cpp::PROGRAM,
    &ollama::PROGRAM,
    &mlx_lm::PROGRAM,
    &peft::PROGRAM,
    &diffusers::PROGRAM,
    &comfyui::PROGRAM,
    &invokeai::PROGRAM,
    &openvino::PROGRAM,
];

/// The program of this name.
///
/// # Errors
/// [`ErrorKind::BadOption`], with all names.
pub(in crate::ops) fn by_name(name: &str) -> Result<&'static Program> {
    let known = |program: &&&Program| program.name == name || program.aliases.contains(&name);
    PROGRAMS.iter().find(known).copied().ok_or_else(|| {
        let names: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
        let names = names.join(", ");
        ErrorKind::BadOption(format!("nothing is known of `{name}`; there are {names}")).into()
    })
}

fn nothing(_: &Subject<'_>) -> Vec<String> {
    Vec::new()
}
