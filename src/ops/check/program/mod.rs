//! Programs that load adapters: one file each, of what it reads, what it needs written, and its rules.
//! `registry.rs` has the one list.

mod comfyui;
mod comfyui_names;
mod definition;
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
mod registry;
mod sglang;
mod spelling;
mod tensorrt_llm;
mod tgi;
mod vllm;
mod vllm_classes;
mod vllm_findings;

use crate::adapter::convert::{Experts, Takes};
use definition::nothing;

pub(super) use definition::Field;
pub(in crate::ops) use definition::Program;
pub(in crate::ops) use registry::{PROGRAMS, by_name};
pub(in crate::ops) use vllm_findings::rank_flag;
