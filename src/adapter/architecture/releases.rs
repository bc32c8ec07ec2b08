//! Modules that a release of transformers calls otherwise than the checkpoints of its model, class by class
//! (transformers `conversion_mapping.py`). What only stands before a name is
//! [`root`](crate::weight::root)'; experts are [`super::experts`]'.

use std::collections::BTreeSet;

use super::{Architecture, Cut, Names, OfBase, Rule, undetected};

pub(super) static ARCHITECTURE: Architecture = Architecture {
    name: "releases",
    tables: &[],
    rules: OfBase::Beside(rules),
    detect: undetected,
};

/// (name in transformers, name in checkpoints) below whatever stands before both.
type Class = [(&'static str, &'static str)];

/// One table a class, or a family of classes that share it.
const CLASSES: [&Class; 11] = [
    VIT,
    DINO,
    SWIN,
    EXAONE,
    ERNIE_VL,
    HUNYUAN_VL,
    DETR,
    NEMOTRON_OMNI,
    NOMIC,
    DEEPSEEK_4,
    GRANITE,
];

/// `ViTModel`, and AST, BEiT, DeiT, I-JEPA, ViT-MAE, ViT-MSN and ViViT.
const VIT: &Class = &[
    ("layers.{i}.attention.q_proj", "encoder.layer.{i}.attention.attention.query"),
    ("layers.{i}.attention.k_proj", "encoder.layer.{i}.attention.attention.key"),
    ("layers.{i}.attention.v_proj", "encoder.layer.{i}.attention.attention.value"),
    ("layers.{i}.attention.o_proj", "encoder.layer.{i}.attention.output.dense"),
    ("layers.{i}.mlp.fc1", "encoder.layer.{i}.intermediate.dense"),
    ("layers.{i}.mlp.fc2", "encoder.layer.{i}.output.dense"),
];

/// `Dinov2Model`, with registers too, and LW-DETR's backbone.
const DINO: &Class = &[
    ("layer.{i}.attention.q_proj", "layer.{i}.attention.attention.query"),
    ("layer.{i}.attention.k_proj", "layer.{i}.attention.attention.key"),
    ("layer.{i}.attention.v_proj", "layer.{i}.attention.attention.value"),
    ("layer.{i}.attention.o_proj", "layer.{i}.attention.output.dense"),
    ("layer.{i}.mlp.down_proj", "layer.{i}.mlp.weights_out"),
];

/// `swin`, and SegFormer's attention.
const SWIN: &Class = &[
    ("blocks.{i}.attention.q_proj", "blocks.{i}.attention.self.query"),
    ("blocks.{i}.attention.k_proj", "blocks.{i}.attention.self.key"),
    ("blocks.{i}.attention.v_proj", "blocks.{i}.attention.self.value"),
    ("blocks.{i}.attention.o_proj", "blocks.{i}.attention.output.dense"),
    ("blocks.{i}.mlp.fc1", "blocks.{i}.intermediate.dense"),
    ("blocks.{i}.mlp.fc2", "blocks.{i}.output.dense"),
];

/// `exaone`.
const EXAONE: &Class = &[
    ("model.embed_tokens", "transformer.wte"),
    ("model.norm", "transformer.ln_f"),
    ("model.layers.{i}.self_attn.q_proj", "transformer.h.{i}.attn.attention.q_proj"),
    ("model.layers.{i}.self_attn.k_proj", "transformer.h.{i}.attn.attention.k_proj"),
    ("model.layers.{i}.self_attn.v_proj", "transformer.h.{i}.attn.attention.v_proj"),
    ("model.layers.{i}.self_attn.o_proj", "transformer.h.{i}.attn.attention.out_proj"),
    ("model.layers.{i}.mlp.gate_proj", "transformer.h.{i}.mlp.c_fc_0"),
    ("model.layers.{i}.mlp.up_proj", "transformer.h.{i}.mlp.c_fc_1"),
    ("model.layers.{i}.mlp.down_proj", "transformer.h.{i}.mlp.c_proj"),
    ("model.layers.{i}.input_layernorm", "transformer.h.{i}.ln_1"),
    ("model.layers.{i}.post_attention_layernorm", "transformer.h.{i}.ln_2"),
];

/// `ernie4_5_vl_moe`.
const ERNIE_VL: &Class = &[
    ("resampler_model.spatial_linear.fc1", "resampler_model.spatial_linear.0"),
    ("resampler_model.spatial_linear.fc2", "resampler_model.spatial_linear.2"),
    ("resampler_model.spatial_linear.ln", "resampler_model.spatial_linear.3"),
    ("resampler_model.temporal_linear.fc1", "resampler_model.temporal_linear.0"),
    ("resampler_model.temporal_linear.fc2", "resampler_model.temporal_linear.2"),
    ("resampler_model.temporal_linear.ln", "resampler_model.temporal_linear.3"),
];

/// `hunyuan_vl` and `hy_v4_vl`.
const HUNYUAN_VL: &Class = &[
    ("vision_tower.layers.{i}.mlp.fc1", "vit.layers.{i}.mlp.dense_h_to_4h"),
    ("vision_tower.layers.{i}.mlp.fc2", "vit.layers.{i}.mlp.dense_4h_to_h"),
    ("vision_tower.layers.{i}.layer_norm1", "vit.layers.{i}.input_layernorm"),
    ("vision_tower.layers.{i}.layer_norm2", "vit.layers.{i}.post_attention_layernorm"),
];

/// `DetrModel`, `rt_detr` and `maskformer`.
const DETR: &Class = &[
    ("layers.{i}.self_attn.o_proj", "layers.{i}.self_attn.out_proj"),
    ("layers.{i}.encoder_attn.o_proj", "layers.{i}.encoder_attn.out_proj"),
    ("layers.{i}.mlp.fc1", "layers.{i}.fc1"),
    ("layers.{i}.mlp.fc2", "layers.{i}.fc2"),
];

/// `NemotronH_Omni_Reasoning_V3`; and `qianfan_ocr`, whose projector is the same.
const NEMOTRON_OMNI: &Class = &[
    ("multi_modal_projector.layer_norm", "mlp1.0"),
    ("multi_modal_projector.linear_1", "mlp1.1"),
    ("multi_modal_projector.linear_2", "mlp1.3"),
    ("embed_audio.layer_norm", "sound_projection.norm"),
    ("embed_audio.linear_1", "sound_projection.linear1"),
    ("embed_audio.linear_2", "sound_projection.linear2"),
];

/// `nomic_bert`.
const NOMIC: &Class = &[
    ("layers.{i}.self_attn.o_proj", "encoder.layers.{i}.attn.out_proj"),
    ("layers.{i}.mlp.up_proj", "encoder.layers.{i}.mlp.fc11"),
    ("layers.{i}.mlp.gate_proj", "encoder.layers.{i}.mlp.fc12"),
    ("layers.{i}.mlp.down_proj", "encoder.layers.{i}.mlp.fc2"),
];

/// `deepseek_v4`.
const DEEPSEEK_4: &Class = &[
    ("layers.{i}.self_attn.q_a_proj", "layers.{i}.attn.wq_a"),
    ("layers.{i}.self_attn.q_b_proj", "layers.{i}.attn.wq_b"),
    ("layers.{i}.self_attn.kv_proj", "layers.{i}.attn.wkv"),
    ("layers.{i}.self_attn.o_a_proj", "layers.{i}.attn.wo_a"),
    ("layers.{i}.self_attn.o_b_proj", "layers.{i}.attn.wo_b"),
    ("layers.{i}.mlp.shared_experts.gate_proj", "layers.{i}.ffn.shared_experts.w1"),
    ("layers.{i}.mlp.shared_experts.up_proj", "layers.{i}.ffn.shared_experts.w3"),
    ("layers.{i}.mlp.shared_experts.down_proj", "layers.{i}.ffn.shared_experts.w2"),
    ("lm_head", "head"),
    ("embed_tokens", "embed"),
];

/// `granitemoe`, shared and hybrid.
const GRANITE: &Class =
    &[("layers.{i}.block_sparse_moe.router", "layers.{i}.block_sparse_moe.router.layer")];

/// Stacks of experts, (parameter in transformers, in checkpoints): `granitemoe`, `aria_text`.
const STACKS: [(&str, &str); 4] = [
    ("block_sparse_moe.experts.gate_up_proj", "block_sparse_moe.input_linear.weight"),
    ("block_sparse_moe.experts.down_proj", "block_sparse_moe.output_linear.weight"),
    ("mlp.experts.gate_up_proj", "mlp.experts.fc1.weight"),
    ("mlp.experts.down_proj", "mlp.experts.fc2.weight"),
];

fn rules(names: &Names<'_>) -> Vec<Rule> {
    // The last part of a name tells fast that a rule has nothing to do here.
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let present: BTreeSet<String> = names.iter().map(|name| last(name)).collect();
    let mut rules = Vec::new();
    for (split, published) in CLASSES.iter().flat_map(|class| class.iter()) {
        if !present.contains(&last(split)) && !present.contains(&last(published)) {
            continue;
        }
        for above in ["", "{*}."] {
            rules.push(Rule {
                split: format!("{above}{split}"),
                published: format!("{above}{published}"),
                cut: Cut::Whole,
            });
        }
    }
    for (new, old) in STACKS {
        for (asked, stored) in [(new, old), (old, new)] {
            let (holder, parameter) = asked.rsplit_once('.').unwrap_or(("", asked));
            rules.push(Rule {
                split: format!("{{*}}.{holder}.{{e}}.{parameter}"),
                published: format!("{{*}}.{}", stored.strip_suffix(".weight").unwrap_or(stored)),
                cut: Cut::Stack,
            });
        }
    }
    rules
}
