//! How weights are stored: one file an encoding, each with the rule that tells it apart and the loop that
//! decodes its rows. `registry.rs` has the one list; what none of them claims is plain.

mod awq;
mod bnb_4bit;
mod bnb_int8;
mod comfy;
mod definition;
mod fp8_block;
mod fp8_scaled;
mod ggml;
mod gptq;
mod int_packed;
mod int_quantized;
mod mlx;
mod mxfp4;
mod mxfp4_packed;
mod nvfp4;
mod plain;
mod registry;
mod unread;

use super::decode::{InEightBits, Recognised};
use definition::{module_of, stack};

pub use definition::{Encoding, Setting};
pub(super) use fp8_scaled::rows as float8_rows;
pub(super) use ggml::NAME as GGML;
pub(crate) use ggml::writer as ggml_writer;
pub(super) use plain::{PLAIN, cast};
pub(crate) use registry::TRAINED;
pub use registry::{ENCODINGS, TRAINED_NAMES};
