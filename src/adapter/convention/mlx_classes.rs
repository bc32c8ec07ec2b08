//! The model types that mlx-lm has a class for, and where each has a layer's experts (mlx-lm 0.32.2 `models/*.py`;
//! `utils.py`, `MODEL_REMAPPING`), as data.

/// Where a class has the stacks of a layer's experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stacks {
    /// Beside the router, as `switch_mlp.gate_proj`.
    SwitchMlp,
    /// As `experts.gate_proj`.
    InExperts,
    /// It has no experts, or calls their matrices otherwise than their checkpoints.
    Unnamed,
}

/// The stacks of models of a `model_type`; `None`, if mlx-lm has no class for it.
pub(crate) fn stacks_of(model_type: &str) -> Option<Stacks> {
    let listed = |list: &[&str]| list.contains(&model_type);
    if listed(SWITCH_MLP) {
        Some(Stacks::SwitchMlp)
    } else if listed(IN_EXPERTS) {
        Some(Stacks::InExperts)
    } else {
        listed(OTHERS).then_some(Stacks::Unnamed)
    }
}

const SWITCH_MLP: &[&str] = &[
    "bailing_moe",
    "bailing_moe_linear",
    "deepseek",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "ernie4_5_moe",
    "exaone_moe",
    "glm4_moe",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "hunyuan",
    "jamba",
    "joyai_llm_flash",
    "kimi_k2",
    "laguna",
    "lfm2_moe",
    "longcat_flash",
    "mellum",
    "mimo_v2_flash",
    "minimax",
    "minimax_m2",
    "mistral4",
    "mixtral",
    "olmoe",
    "phimoe",
    "qwen2_moe",
    "qwen3_5_moe",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_vl_moe",
    "solar_open",
];

const IN_EXPERTS: &[&str] = &["Klear", "afmoe", "dots1", "gpt_oss", "llama4"];

const OTHERS: &[&str] = &[
    "afm7",
    "apertus",
    "baichuan_m1",
    "bailing_hybrid",
    "bailing_moe_v3",
    "bitnet",
    "cohere",
    "cohere2",
    "dbrx",
    "deepseek_v41",
    "deepseek_v41_text",
    "ernie4_5",
    "exaone",
    "exaone4",
    "falcon_h1",
    "falcon_mamba",
    "gear",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gemma3n",
    "gemma4",
    "gemma4_text",
    "gemma4_unified",
    "glm",
    "glm4",
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "gptj",
    "granite",
    "granitemoe",
    "granitemoehybrid",
    "helium",
    "hunyuan_v1_dense",
    "internlm2",
    "internlm3",
    "iquestcoder",
    "iquestloopcoder",
    "kimi_k25",
    "kimi_k3",
    "kimi_linear",
    "kimi_vl",
    "lfm2-vl",
    "lfm2",
    "lille-130m",
    "llama",
    "llama4_text",
    "llava",
    "longcat_flash_ngram",
    "mamba",
    "mamba2",
    "mimo",
    "minicpm",
    "minicpm3",
    "minimax_m3_vl",
    "ministral3",
    "mistral",
    "mistral3",
    "muse_glimmer",
    "muse_spark",
    "nanbeige",
    "nanochat",
    "nemotron-nas",
    "nemotron",
    "nemotron_h",
    "olmo",
    "olmo2",
    "olmo3",
    "olmo_hybrid",
    "openelm",
    "phi",
    "phi-msft",
    "phi3",
    "phi3small",
    "phixtral",
    "pixtral",
    "plamo",
    "plamo2",
    "plamo3",
    "prism_hadamard_qwen35",
    "qwen",
    "qwen2",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3",
    "qwen3_5",
    "qwen3_vl",
    "recurrent_gemma",
    "rwkv7",
    "seed_oss",
    "smollm3",
    "spark2_5",
    "stablelm",
    "starcoder2",
    "step3p5",
    "talkie",
    "telechat3",
    "xverse",
    "youtu_llm",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_type_has_one_class() {
        let mut all: Vec<&str> = [SWITCH_MLP, IN_EXPERTS, OTHERS].concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(stacks_of("gpt_oss"), Some(Stacks::InExperts));
        assert_eq!(stacks_of("llama4_text"), Some(Stacks::Unnamed));
        assert_eq!(stacks_of("internvl"), None);
    }
}
