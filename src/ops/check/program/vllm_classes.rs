//! Facts of vLLM's model classes (vLLM 0.33.0, `model_executor/models/*`): which take LoRA at all, how
//! they read experts, and whether they take factors of embeddings.

use super::spelling::Spelling;

/// Classes that take LoRA.
pub(super) static KNOWN: [&str; 197] = [
    "AXK1ForCausalLM", "AfmoeForCausalLM", "AliceAIForCausalLM",
    "Alpamayo2SuperForConditionalGeneration", "ApertusForCausalLM",
    "AudioFlamingo3ForConditionalGeneration", "BagelForConditionalGeneration",
    "BailingMoeForCausalLM", "BailingMoeV2ForCausalLM", "BertEmbeddingModel",
    "BertForSequenceClassification", "BertForTokenClassification",
    "BertSpladeSparseEmbeddingModel", "BgeM3EmbeddingModel", "Blip2ForConditionalGeneration",
    "ChatGLMForCausalLM", "ClefFlashForJointSchema", "ClefOmniForJointSchema",
    "CohereCompassForCausalLM", "CohereCompassForConditionalGeneration", "CohereForCausalLM",
    "ColBERTModel", "ColPaliModel", "ColQwen3Model", "ColQwen3_5Model",
    "Cosmos3ForConditionalGeneration", "DFlash2Qwen3ForCausalLM", "DFlashQwen3ForCausalLM",
    "DeciLMForCausalLM", "DeepseekForCausalLM", "DeepseekOCR2ForCausalLM",
    "DeepseekOCRForCausalLM", "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM",
    "DotsOCRForCausalLM", "Eagle2_5_VLForConditionalGeneration", "Eagle3DeepseekV2ForCausalLM",
    "Eagle3Qwen3ForCausalLM", "EagleCohereForCausalLM", "EagleDeepseekV3ForCausalLM",
    "EagleMiniCPMForCausalLM", "Ernie4_5ForCausalLM", "Ernie4_5_MoeForCausalLM",
    "Ernie4_5_VLMoeForConditionalGeneration", "Exaone4ForCausalLM",
    "Exaone4_5_ForConditionalGeneration", "ExaoneForCausalLM", "ExaoneMoeForCausalLM",
    "FalconH1ForCausalLM", "GLM4VForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM",
    "Gemma3ForConditionalGeneration", "Gemma4DSparkForCausalLM", "Gemma4ForCausalLM",
    "Gemma4ForConditionalGeneration", "Gemma4UnifiedForConditionalGeneration",
    "GemmaForCausalLM", "Glm4ForCausalLM", "Glm4MoeForCausalLM", "Glm4MoeLiteForCausalLM",
    "Glm4vForConditionalGeneration", "Glm4vMoeForConditionalGeneration",
    "GlmAsrForConditionalGeneration", "GlmMoeDsaForCausalLM", "GlmOcrForConditionalGeneration",
    "GptOssForCausalLM", "Granite4VisionForConditionalGeneration", "GraniteForCausalLM",
    "GraniteMoeForCausalLM", "GraniteMoeHybridForCausalLM", "GraniteMoeSharedForCausalLM",
    "GraniteSpeechForConditionalGeneration", "GraniteSpeechPlusForConditionalGeneration",
    "H2OVLChatModel", "HYV3ForCausalLM", "HyperCLOVAXForCausalLM",
    "Idefics3ForConditionalGeneration", "InternLM2ForCausalLM", "InternLM2ForRewardModel",
    "InternS1ForConditionalGeneration", "InternS1ProForConditionalGeneration",
    "InternS2MobiusForCausalLM", "InternS2MobiusForConditionalGeneration",
    "InternS2PreviewForConditionalGeneration", "InternVLChatModel",
    "IsaacForConditionalGeneration", "JambaForCausalLM", "JambaForSequenceClassification",
    "JinaEmbeddingsV5DecoderModel", "JinaEmbeddingsV5EncoderModel", "JinaEmbeddingsV5Model",
    "JinaVLForSequenceClassification", "K2HorizonForCausalLM", "KeyeForConditionalGeneration",
    "KeyeVL1_5ForConditionalGeneration", "LagunaForCausalLM", "Lfm2ForCausalLM",
    "Lfm2MoeForCausalLM", "Lfm2VLForConditionalGeneration", "LiLiCorrForCausalLM",
    "LightOnOCRForConditionalGeneration", "Llama4ForCausalLM", "Llama4ForConditionalGeneration",
    "LlamaForCausalLM", "LlamaNemotronVLChatModel", "LlamaNemotronVLForEmbedding",
    "LlamaNemotronVLForSequenceClassification", "LlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration", "LlavaNextVideoForConditionalGeneration",
    "LongcatFlashForCausalLM", "LongcatFlashNgramForCausalLM", "MiMoForCausalLM",
    "MiniCPM3ForCausalLM", "MiniCPMForCausalLM", "MiniCPMO", "MiniCPMO2_6", "MiniCPMO4_5",
    "MiniCPMOcrForConditionalGeneration", "MiniCPMV", "MiniCPMV2_5", "MiniCPMV2_6",
    "MiniCPMV4_0", "MiniCPMV4_5", "MiniCPMV4_6ForConditionalGeneration",
    "MiniCPMV4_7ForConditionalGeneration", "MiniMaxM2ForCausalLM",
    "Mistral3ForConditionalGeneration", "MistralForCausalLM", "MistralLarge3ForCausalLM",
    "MixtralForCausalLM", "ModernBertModel", "Molmo2ForConditionalGeneration",
    "MolmoForCausalLM", "MossAudioModel", "MossQwen3ForCausalLM", "MuseGlimmerForCausalLM",
    "NVLM_D_Model", "NemotronForCausalLM", "NemotronHForCausalLM", "NemotronH_Nano_VL_V2",
    "OPTForCausalLM", "OlmoHybridForCausalLM", "OlmoeForCausalLM",
    "OpenCUAForConditionalGeneration", "OpenPanguEmbeddedModel", "OpenPanguMoEModel",
    "OpenPanguVLForConditionalGeneration", "PaliGemmaForConditionalGeneration",
    "PanguEmbeddedForCausalLM", "PanguProMoEV2ForCausalLM", "PanguUltraMoEForCausalLM",
    "Param2MoEForCausalLM", "Phi3ForCausalLM", "Phi4MMForCausalLM", "PhiMoEForCausalLM",
    "PixtralForConditionalGeneration", "Plamo3ForCausalLM",
    "QianfanOCRForConditionalGeneration", "Qwen2ForCausalLM", "Qwen2ForProcessRewardModel",
    "Qwen2ForRewardModel", "Qwen2MoeForCausalLM", "Qwen2VLForConditionalGeneration",
    "Qwen2_5OmniThinkerForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration",
    "Qwen3ASRForConditionalGeneration", "Qwen3ASRForcedAlignerForTokenClassification",
    "Qwen3ASRRealtimeGeneration", "Qwen3DSparkForCausalLM", "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM", "Qwen3NextForCausalLM",
    "Qwen3OmniMoeThinkerForConditionalGeneration", "Qwen3VLForConditionalGeneration",
    "Qwen3VLMoeForConditionalGeneration", "Qwen3XPressForCausalLM", "Qwen3_5ForCausalLM",
    "Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForCausalLM",
    "Qwen3_5MoeForConditionalGeneration", "Rnj1ForCausalLM", "RobertaEmbeddingModel",
    "RobertaForSequenceClassification", "SarvamMLAForCausalLM", "SarvamMoEForCausalLM",
    "SmolVLMForConditionalGeneration", "SolarForCausalLM", "TeleChat2ForCausalLM",
    "TeleFLMForCausalLM", "UltravoxModel", "UnlimitedOCRForCausalLM",
    "VoxtralForConditionalGeneration", "VoxtralRealtimeGeneration",
    "VoyageQwen3BidirectionalEmbedModel", "WhisperForConditionalGeneration",
];

/// Classes that take factors of embeddings and of the head.
pub(super) static EMBEDDINGS: [&str; 52] = [
    "ApertusForCausalLM", "CohereCompassForCausalLM", "CohereForCausalLM",
    "DFlash2Qwen3ForCausalLM", "DFlashQwen3ForCausalLM", "DeciLMForCausalLM",
    "Eagle3Qwen3ForCausalLM", "EagleCohereForCausalLM", "EagleMiniCPMForCausalLM",
    "Ernie4_5ForCausalLM", "Exaone4ForCausalLM", "ExaoneForCausalLM", "ExaoneMoeForCausalLM",
    "FalconH1ForCausalLM", "Gemma4DSparkForCausalLM", "GraniteForCausalLM",
    "GraniteMoeForCausalLM", "GraniteMoeHybridForCausalLM", "GraniteMoeSharedForCausalLM",
    "HyperCLOVAXForCausalLM", "InternS2MobiusForCausalLM", "JambaForCausalLM",
    "JambaForSequenceClassification", "JinaEmbeddingsV5DecoderModel",
    "JinaEmbeddingsV5EncoderModel", "JinaEmbeddingsV5Model", "K2HorizonForCausalLM",
    "Lfm2ForCausalLM", "Lfm2MoeForCausalLM", "LiLiCorrForCausalLM", "Llama4ForCausalLM",
    "LlamaForCausalLM", "MiniCPM3ForCausalLM", "MiniCPMForCausalLM", "MixtralForCausalLM",
    "MossAudioModel", "MossQwen3ForCausalLM", "NemotronForCausalLM", "NemotronHForCausalLM",
    "NemotronH_Nano_VL_V2", "Param2MoEForCausalLM", "Phi3ForCausalLM", "PhiMoEForCausalLM",
    "Qwen3DSparkForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM",
    "Qwen3XPressForCausalLM", "Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM", "SolarForCausalLM",
    "TeleChat2ForCausalLM", "TeleFLMForCausalLM",
];

/// Classes that read a layer's experts as PEFT's stacks; all others read them one by one.
pub(super) static STACKED: [&str; 8] = [
    "ClefOmniForJointSchema", "GptOssForCausalLM", "InternS1ProForConditionalGeneration",
    "InternS2MobiusForConditionalGeneration", "InternS2PreviewForConditionalGeneration",
    "Qwen3OmniMoeThinkerForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration",
    "Qwen3_5MoeForConditionalGeneration",
];

/// Classes that have projections fused as the checkpoint has them, and take them under those names.
pub(super) static FUSED: [(&str, &[&str]); 12] = [
    ("BailingMoeForCausalLM", &["query_key_value"]),
    ("BailingMoeV2ForCausalLM", &["query_key_value"]),
    ("ChatGLMForCausalLM", &["query_key_value", "dense_h_to_4h"]),
    ("GLM4VForCausalLM", &["query_key_value", "dense_h_to_4h"]),
    ("Glm4vForConditionalGeneration", &["gate_up_proj"]),
    ("GlmOcrForConditionalGeneration", &["gate_up_proj"]),
    ("InternLM2ForCausalLM", &["wqkv"]),
    ("Molmo2ForConditionalGeneration", &["qkv_proj"]),
    ("MolmoForCausalLM", &["qkv_proj", "gate_up_proj"]),
    ("Phi3ForCausalLM", &["qkv_proj", "gate_up_proj"]),
    ("Phi4MMForCausalLM", &["qkv_proj", "gate_up_proj"]),
    ("Plamo3ForCausalLM", &["qkv_proj", "gate_up_proj"]),
];

/// Spellings of a wrapped language model that a wrapper's own mapper takes (`hf_to_vllm_mapper`).
type Wrapper = (&'static [Spelling], &'static [&'static str]);

/// Vision and audio wrappers. Since 0.33 all but the last two rows also take a text model's own names.
pub(super) static WRAPPERS: [Wrapper; 7] = [
    (
        &[Spelling::Text, Spelling::Nested, Spelling::Outer],
        &[
            "Qwen2VLForConditionalGeneration",
            "Qwen2_5_VLForConditionalGeneration",
            "Mistral3ForConditionalGeneration",
            "Gemma4ForConditionalGeneration",
            "Gemma4UnifiedForConditionalGeneration",
            "DeepseekOCRForCausalLM",
            "DeepseekOCR2ForCausalLM",
            "Exaone4_5_ForConditionalGeneration",
            "JinaVLForSequenceClassification",
            "OpenCUAForConditionalGeneration",
            "OpenPanguVLForConditionalGeneration",
        ],
    ),
    (
        &[Spelling::Nested, Spelling::Outer],
        &[
            "Qwen3VLForConditionalGeneration",
            "Qwen3VLMoeForConditionalGeneration",
            "Qwen3_5ForConditionalGeneration",
            "Qwen3_5MoeForConditionalGeneration",
            "Gemma3ForConditionalGeneration",
            "PaliGemmaForConditionalGeneration",
            "ColPaliModel",
            "ColQwen3Model",
            "LlavaForConditionalGeneration",
            "LlavaNextForConditionalGeneration",
            "LlavaNextVideoForConditionalGeneration",
            "Lfm2VLForConditionalGeneration",
            "Granite4VisionForConditionalGeneration",
            "InternS1ForConditionalGeneration",
            "InternS1ProForConditionalGeneration",
            "InternS2PreviewForConditionalGeneration",
            "InternS2MobiusForConditionalGeneration",
            "MiniCPMV4_6ForConditionalGeneration",
            "MiniCPMV4_7ForConditionalGeneration",
            "LightOnOCRForConditionalGeneration",
            "Qwen3ASRForConditionalGeneration",
            "CohereCompassForConditionalGeneration",
            "PixtralForConditionalGeneration",
            "Glm4vForConditionalGeneration",
            "Glm4vMoeForConditionalGeneration",
            "GlmOcrForConditionalGeneration",
        ],
    ),
    (
        &[Spelling::Outer],
        &[
            "InternVLChatModel",
            "H2OVLChatModel",
            "NVLM_D_Model",
            "Llama4ForConditionalGeneration",
            "Blip2ForConditionalGeneration",
            "GraniteSpeechForConditionalGeneration",
            "Eagle2_5_VLForConditionalGeneration",
            "LlamaNemotronVLChatModel",
            "VoxtralForConditionalGeneration",
            "AudioFlamingo3ForConditionalGeneration",
            "UltravoxModel",
            "Qwen2_5OmniThinkerForConditionalGeneration",
        ],
    ),
    (
        &[Spelling::Text, Spelling::Outer],
        &[
            "Qwen3OmniMoeThinkerForConditionalGeneration",
            "KeyeForConditionalGeneration",
            "KeyeVL1_5ForConditionalGeneration",
            "DotsOCRForCausalLM",
            "IsaacForConditionalGeneration",
        ],
    ),
    (
        &[Spelling::Llm],
        &["MiniCPMV", "MiniCPMV2_5", "MiniCPMV2_6", "MiniCPMV4_0", "MiniCPMV4_5", "MiniCPMO"],
    ),
    (&[Spelling::Text], &["MolmoForCausalLM", "Phi4MMForCausalLM"]),
    (
        &[Spelling::TextModel],
        &["Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration"],
    ),
];

/// Whether a class reads a layer's experts as PEFT's stacks.
pub(in crate::ops) fn is_stacked(class: &str) -> bool {
    STACKED.contains(&class)
}

/// The spellings of a wrapper, if the class is one.
pub(super) fn wrapper(class: &str) -> Option<&'static [Spelling]> {
    WRAPPERS.iter().find(|(_, classes)| classes.contains(&class)).map(|(spellings, _)| *spellings)
}
