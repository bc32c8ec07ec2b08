//! What releases of transformers call the modules of one class, before and after.

/// Module names in one spelling, and in another.
pub type Pair<'a> = &'a [(&'a str, &'a str)];

/// Rules that only rename: (class, names).
pub const RENAMES: [(&str, Pair<'_>); 23] = [
    (
        "llava",
        &[
            (
                "language_model.model.layers.0.self_attn.q_proj",
                "model.language_model.layers.0.self_attn.q_proj",
            ),
            ("language_model.lm_head", "lm_head"),
            (
                "vision_tower.vision_model.encoder.layers.0.mlp.fc1",
                "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1",
            ),
            ("multi_modal_projector.linear_1", "model.multi_modal_projector.linear_1"),
        ],
    ),
    (
        "siglip inside a tower",
        &[
            (
                "language_model.model.layers.0.mlp.up_proj",
                "model.language_model.layers.0.mlp.up_proj",
            ),
            (
                "vision_tower.vision_model.encoder.layers.0.mlp.fc1",
                "model.vision_tower.encoder.layers.0.mlp.fc1",
            ),
        ],
    ),
    (
        "qwen2_vl",
        &[
            ("model.layers.0.self_attn.q_proj", "model.language_model.layers.0.self_attn.q_proj"),
            ("visual.blocks.0.attn.qkv", "model.visual.blocks.0.attn.qkv"),
        ],
    ),
    (
        "qwen2_5_omni thinker alone",
        &[
            (
                "thinker.model.layers.0.self_attn.q_proj",
                "model.language_model.layers.0.self_attn.q_proj",
            ),
            ("thinker.audio_tower.layers.0.fc1", "model.audio_tower.layers.0.fc1"),
            ("thinker.visual.blocks.0.attn.q", "model.visual.blocks.0.attn.q"),
        ],
    ),
    (
        "qwen2_audio and voxtral",
        &[
            (
                "language_model.model.layers.0.self_attn.q_proj",
                "model.language_model.layers.0.self_attn.q_proj",
            ),
            ("audio_tower.layers.0.fc1", "model.audio_tower.layers.0.fc1"),
            ("multi_modal_projector.linear", "model.multi_modal_projector.linear"),
        ],
    ),
    (
        "granite_speech",
        &[
            (
                "language_model.model.layers.0.self_attn.q_proj",
                "model.language_model.layers.0.self_attn.q_proj",
            ),
            ("encoder.layers.0.attn.to_q", "model.encoder.layers.0.attn.to_q"),
            ("projector.linear", "model.projector.linear"),
        ],
    ),
    (
        "video_llava",
        &[
            (
                "language_model.model.layers.0.mlp.up_proj",
                "model.language_model.layers.0.mlp.up_proj",
            ),
            ("image_tower.encoder.layers.0.fc1", "model.image_tower.encoder.layers.0.fc1"),
            ("video_tower.encoder.layers.0.fc1", "model.video_tower.encoder.layers.0.fc1"),
        ],
    ),
    (
        "mllama",
        &[
            (
                "language_model.model.layers.0.mlp.up_proj",
                "model.language_model.layers.0.mlp.up_proj",
            ),
            (
                "vision_model.transformer.layers.0.mlp.fc1",
                "model.vision_model.transformer.layers.0.mlp.fc1",
            ),
        ],
    ),
    (
        "emu3",
        &[
            ("text_model.model.layers.0.mlp.up_proj", "model.text_model.layers.0.mlp.up_proj"),
            ("text_model.lm_head", "lm_head"),
        ],
    ),
    (
        "paddleocr_vl",
        &[
            ("model.layers.0.mlp.up_proj", "model.language_model.layers.0.mlp.up_proj"),
            ("mlp_AR.linear_1", "model.projector.linear_1"),
            (
                "visual.vision_model.encoder.layers.0.fc1",
                "model.visual.vision_model.encoder.layers.0.fc1",
            ),
        ],
    ),
    (
        "ernie4_5_vl_moe",
        &[
            ("model.layers.0.self_attn.q_proj", "model.language_model.layers.0.self_attn.q_proj"),
            ("vision_model.blocks.0.attn.proj", "model.vision_tower.blocks.0.attn.proj"),
            ("model.resampler_model.spatial_linear.0", "model.resampler_model.spatial_linear.fc1"),
            (
                "model.resampler_model.temporal_linear.2",
                "model.resampler_model.temporal_linear.fc2",
            ),
        ],
    ),
    (
        "colqwen2",
        &[(
            "vlm.model.language_model.layers.0.mlp.up_proj",
            "vlm.language_model.layers.0.mlp.up_proj",
        )],
    ),
    (
        "qwen3_5 text in its vision model",
        &[("model.language_model.layers.3.self_attn.q_proj", "model.layers.3.self_attn.q_proj")],
    ),
    ("nemotron_h", &[("backbone.layers.0.mixer.in_proj", "model.layers.0.mixer.in_proj")]),
    (
        "gpt_neox",
        &[
            ("embed_out", "lm_head"),
            ("gpt_neox.layers.0.attention.dense", "gpt_neox.layers.0.attention.dense"),
        ],
    ),
    (
        "CLIPTextModel",
        &[("text_model.encoder.layers.0.self_attn.q_proj", "encoder.layers.0.self_attn.q_proj")],
    ),
    (
        "CLIPVisionModel",
        &[("vision_model.encoder.layers.0.self_attn.q_proj", "encoder.layers.0.self_attn.q_proj")],
    ),
    (
        "ViTModel",
        &[
            ("vit.encoder.layer.0.attention.attention.query", "vit.layers.0.attention.q_proj"),
            ("vit.encoder.layer.0.attention.output.dense", "vit.layers.0.attention.o_proj"),
            ("vit.encoder.layer.0.intermediate.dense", "vit.layers.0.mlp.fc1"),
            ("vit.encoder.layer.0.output.dense", "vit.layers.0.mlp.fc2"),
        ],
    ),
    (
        "Dinov2Model",
        &[
            ("encoder.layer.0.attention.attention.query", "encoder.layer.0.attention.q_proj"),
            ("encoder.layer.0.mlp.weights_out", "encoder.layer.0.mlp.down_proj"),
        ],
    ),
    (
        "exaone",
        &[
            ("transformer.h.0.attn.attention.q_proj", "model.layers.0.self_attn.q_proj"),
            ("transformer.h.0.attn.attention.out_proj", "model.layers.0.self_attn.o_proj"),
            ("transformer.h.0.mlp.c_fc_0", "model.layers.0.mlp.gate_proj"),
        ],
    ),
    (
        "NemotronH omni",
        &[
            ("mlp1.1", "model.multi_modal_projector.linear_1"),
            ("sound_projection.linear1", "model.embed_audio.linear_1"),
        ],
    ),
    (
        "mixtral",
        &[
            ("model.layers.0.block_sparse_moe.gate", "model.layers.0.mlp.gate"),
            (
                "model.layers.0.block_sparse_moe.experts.1.w1",
                "model.layers.0.mlp.experts.1.gate_proj",
            ),
        ],
    ),
    (
        "a root that no table has",
        &[("acme.layers.0.attn.q", "layers.0.attn.q"), ("acme.layers.1.attn.k", "layers.1.attn.k")],
    ),
];
