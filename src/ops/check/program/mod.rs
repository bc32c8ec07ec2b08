//! Programs that load adapters: one file each, of what it reads, what it needs written, and its rules;
//! `programs!` is the one list.

#[macro_use]
mod registry;

mod comfyui_names;
mod definition;
mod diffusers_names;
mod program_version;
mod readings;
mod spelling;
mod unheard;
mod vllm_aliases;
mod vllm_classes;
mod vllm_experts;
mod vllm_findings;

use crate::adapter::convert::{Experts, Takes};
use definition::nothing;

pub(super) use definition::Field;
pub(in crate::ops) use definition::Program;
pub(in crate::ops) use program_version::ProgramVersion;
pub(in crate::ops) use registry::by_name;
pub(in crate::ops) use vllm_findings::rank_flag;

programs! {
    vllm, sglang, tensorrt_llm, lmdeploy, tgi, lorax, llama_cpp, ollama, mlx_lm, peft, diffusers, comfyui, forge,
    invokeai, nunchaku, stable_diffusion_cpp, openvino,
}
