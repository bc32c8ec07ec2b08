//! Programs that load adapters: one file each, of what it reads, what it needs written, and its rules.
//! [`PROGRAMS`] is the one list.

mod comfyui;
mod comfyui_names;
mod diffusers;
mod diffusers_names;
mod invokeai;
mod llama_cpp;
mod lmdeploy;
mod lorax;
mod mlx_lm;
mod ollama;
mod openvino;
mod peft;
mod readings;
mod sglang;
mod spelling;
mod tensorrt_llm;
mod tgi;
mod vllm;
mod vllm_classes;

use super::rule::Rule;
use super::subject::Subject;
use crate::error::{ErrorKind, Result};

pub(super) use crate::adapter::convert::{Experts, Takes};

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
