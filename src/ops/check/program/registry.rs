//! The one list of programs.

use super::definition::Program;
use super::{
    comfyui, diffusers, invokeai, llama_cpp, lmdeploy, lorax, mlx_lm, ollama, openvino, peft,
    sglang, tensorrt_llm, tgi, vllm,
};
use crate::error::{ErrorKind, Result};

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
