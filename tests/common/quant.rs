//! The cases of `fixtures/quant`: quantised bases as packages wrote them, with an adapter each.

use std::path::PathBuf;

use super::fixture;

/// Cases whose encoding is written too.
pub const WRITTEN: [&str; 29] = [
    "awq_gemm",
    "bnb_fp4_plain",
    "bnb_int8",
    "bnb_nf4_nested",
    "comfy_quant_fp8_new",
    "comfy_scaled_fp8_old",
    "fp8_block128_ragged",
    "fp8_block_ct",
    "fp8_plain_e4m3fn",
    "fp8_row_fbgemm",
    "fp8_tensor_ct",
    "fp8_tensor_modelopt",
    "gptq_v1_sym",
    "int4_sym_g32_ct",
    "int8_channel_ct",
    "mlx_q4_g64",
    "mxfp4_gptoss",
    "nvfp4_ct",
    "bnb_nf4_nested_experts_odd",
    "comfy_metadata_e5m2",
    "fp8_block_ue8m0_experts",
    "fp8_plain_e5m2",
    "gptq_v2_asym_actorder",
    "int4_asym_gidx_ct",
    "int8_asym_channel_ct",
    "int8_pack_channel_ragged_ct",
    "mlx_q3_g32",
    "mlx_q6_g64",
    "nvfp4_modelopt",
];

/// Cases whose encoding is only read.
pub const READ: [&str; 3] = ["comfy_int8", "comfy_mxfp8", "comfy_nvfp4"];

/// Models in GGUF.
pub const IN_GGUF: [&str; 2] = ["gguf_llama_q8q4", "gguf_qwen3_mixed"];

/// All cases with an adapter.
pub fn merged() -> impl Iterator<Item = &'static str> {
    WRITTEN.into_iter().chain(READ).chain(IN_GGUF)
}

/// All cases; the last has a tensor of each of ggml's types.
pub fn decoded() -> impl Iterator<Item = &'static str> {
    merged().chain(["ggml_types"])
}

/// A case's base: a lone file by its own path.
pub fn base(case: &str) -> PathBuf {
    let directory = fixture("quant").join(case).join("base");
    let entries = std::fs::read_dir(&directory).expect("a case");
    let files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    match files.as_slice() {
        [only] => only.clone(),
        _ => directory,
    }
}

/// A case's adapter.
pub fn adapter(case: &str) -> PathBuf {
    fixture("quant").join(case).join("adapter")
}
