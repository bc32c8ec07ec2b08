//! The one list of encodings.

use super::definition::{Encoding, Setting};
use super::{
    awq, bnb_4bit, bnb_int8, comfy, fp8_block, fp8_scaled, ggml, gptq, int_packed, int_quantized,
    mlx, mxfp4, mxfp4_packed, nvfp4, unread,
};

/// All encodings; the first that recognises a tensor has it.
pub static ENCODINGS: &[Encoding] = &[
    unread::ENCODING,
    ggml::ENCODING,
    bnb_4bit::ENCODING,
    bnb_int8::ENCODING,
    comfy::ENCODING,
    gptq::ENCODING,
    awq::ENCODING,
    mlx::ENCODING,
    mxfp4::ENCODING,
    mxfp4_packed::ENCODING,
    nvfp4::ENCODING,
    int_packed::ENCODING,
    int_quantized::ENCODING,
    fp8_block::ENCODING,
    fp8_scaled::ENCODING,
];

/// What trainers keep the base in while an adapter learns (QLoRA).
pub(crate) static TRAINED: [Setting; 5] =
    [bnb_4bit::NF4, bnb_4bit::NF4_NESTED, bnb_4bit::FP4, bnb_4bit::FP4_NESTED, bnb_int8::INT8];

/// Their names.
pub const TRAINED_NAMES: [&str; 5] = {
    let [a, b, c, d, e] = &TRAINED;
    [a.name, b.name, c.name, d.name, e.name]
};
