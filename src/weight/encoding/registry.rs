//! The one list of encodings.

use super::definition::Encoding;
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
