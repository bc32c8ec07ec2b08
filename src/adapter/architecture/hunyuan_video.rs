//! HunyuanVideo: a relative of FLUX.1 with names of its own (diffusers
//! `convert_hunyuan_video_transformer_to_diffusers`).

use super::{Architecture, Cut, Names, Rule, Seen, Table, Told, has, rules_of};

pub(super) static ARCHITECTURE: Architecture = Architecture { name: "hunyuan_video", rules, told };

const TABLE: &Table = &[
    ("transformer_blocks.{i}.attn.to_q", "double_blocks.{i}.img_attn_qkv", Cut::nth(0, 3)),
    ("transformer_blocks.{i}.attn.to_k", "double_blocks.{i}.img_attn_qkv", Cut::nth(1, 3)),
    ("transformer_blocks.{i}.attn.to_v", "double_blocks.{i}.img_attn_qkv", Cut::nth(2, 3)),
    ("transformer_blocks.{i}.attn.add_q_proj", "double_blocks.{i}.txt_attn_qkv", Cut::nth(0, 3)),
    ("transformer_blocks.{i}.attn.add_k_proj", "double_blocks.{i}.txt_attn_qkv", Cut::nth(1, 3)),
    ("transformer_blocks.{i}.attn.add_v_proj", "double_blocks.{i}.txt_attn_qkv", Cut::nth(2, 3)),
    ("transformer_blocks.{i}.attn.to_out.0", "double_blocks.{i}.img_attn_proj", Cut::Whole),
    ("transformer_blocks.{i}.attn.to_add_out", "double_blocks.{i}.txt_attn_proj", Cut::Whole),
    ("transformer_blocks.{i}.attn.norm_q", "double_blocks.{i}.img_attn_q_norm", Cut::Whole),
    ("transformer_blocks.{i}.attn.norm_k", "double_blocks.{i}.img_attn_k_norm", Cut::Whole),
    ("transformer_blocks.{i}.attn.norm_added_q", "double_blocks.{i}.txt_attn_q_norm", Cut::Whole),
    ("transformer_blocks.{i}.attn.norm_added_k", "double_blocks.{i}.txt_attn_k_norm", Cut::Whole),
    ("transformer_blocks.{i}.norm1.linear", "double_blocks.{i}.img_mod.linear", Cut::Whole),
    ("transformer_blocks.{i}.norm1_context.linear", "double_blocks.{i}.txt_mod.linear", Cut::Whole),
    ("transformer_blocks.{i}.ff.net.0.proj", "double_blocks.{i}.img_mlp.fc1", Cut::Whole),
    ("transformer_blocks.{i}.ff.net.2", "double_blocks.{i}.img_mlp.fc2", Cut::Whole),
    ("transformer_blocks.{i}.ff_context.net.0.proj", "double_blocks.{i}.txt_mlp.fc1", Cut::Whole),
    ("transformer_blocks.{i}.ff_context.net.2", "double_blocks.{i}.txt_mlp.fc2", Cut::Whole),
    ("single_transformer_blocks.{i}.attn.to_q", "single_blocks.{i}.linear1", Cut::nth(0, 7)),
    ("single_transformer_blocks.{i}.attn.to_k", "single_blocks.{i}.linear1", Cut::nth(1, 7)),
    ("single_transformer_blocks.{i}.attn.to_v", "single_blocks.{i}.linear1", Cut::nth(2, 7)),
    (
        "single_transformer_blocks.{i}.proj_mlp",
        "single_blocks.{i}.linear1",
        Cut::Share { start: 3, count: 4, of: 7 },
    ),
    ("single_transformer_blocks.{i}.proj_out", "single_blocks.{i}.linear2", Cut::Whole),
    (
        "single_transformer_blocks.{i}.norm.linear",
        "single_blocks.{i}.modulation.linear",
        Cut::Whole,
    ),
    ("single_transformer_blocks.{i}.attn.norm_q", "single_blocks.{i}.q_norm", Cut::Whole),
    ("single_transformer_blocks.{i}.attn.norm_k", "single_blocks.{i}.k_norm", Cut::Whole),
    ("x_embedder.proj", "img_in.proj", Cut::Whole),
    ("time_text_embed.timestep_embedder.linear_1", "time_in.mlp.0", Cut::Whole),
    ("time_text_embed.timestep_embedder.linear_2", "time_in.mlp.2", Cut::Whole),
    ("time_text_embed.guidance_embedder.linear_1", "guidance_in.mlp.0", Cut::Whole),
    ("time_text_embed.guidance_embedder.linear_2", "guidance_in.mlp.2", Cut::Whole),
    ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer", Cut::Whole),
    ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer", Cut::Whole),
    ("context_embedder.proj_in", "txt_in.input_embedder", Cut::Whole),
    (
        "context_embedder.time_text_embed.timestep_embedder.linear_1",
        "txt_in.t_embedder.mlp.0",
        Cut::Whole,
    ),
    (
        "context_embedder.time_text_embed.timestep_embedder.linear_2",
        "txt_in.t_embedder.mlp.2",
        Cut::Whole,
    ),
    (
        "context_embedder.time_text_embed.text_embedder.linear_1",
        "txt_in.c_embedder.linear_1",
        Cut::Whole,
    ),
    (
        "context_embedder.time_text_embed.text_embedder.linear_2",
        "txt_in.c_embedder.linear_2",
        Cut::Whole,
    ),
    (
        "context_embedder.token_refiner.refiner_blocks.{i}.attn.to_q",
        "txt_in.individual_token_refiner.blocks.{i}.self_attn_qkv",
        Cut::nth(0, 3),
    ),
    (
        "context_embedder.token_refiner.refiner_blocks.{i}.attn.to_k",
        "txt_in.individual_token_refiner.blocks.{i}.self_attn_qkv",
        Cut::nth(1, 3),
    ),
    (
        "context_embedder.token_refiner.refiner_blocks.{i}.attn.to_v",
        "txt_in.individual_token_refiner.blocks.{i}.self_attn_qkv",
        Cut::nth(2, 3),
    ),
    (
        "context_embedder.token_refiner.refiner_blocks.{i}.attn.to_out.0",
        "txt_in.individual_token_refiner.blocks.{i}.self_attn_proj",
        Cut::Whole,
    ),
    (
        "context_embedder.token_refiner.refiner_blocks.{i}.ff.net.0.proj",
        "txt_in.individual_token_refiner.blocks.{i}.mlp.fc1",
        Cut::Whole,
    ),
    (
        "context_embedder.token_refiner.refiner_blocks.{i}.ff.net.2",
        "txt_in.individual_token_refiner.blocks.{i}.mlp.fc2",
        Cut::Whole,
    ),
    (
        "context_embedder.token_refiner.refiner_blocks.{i}.norm_out.linear",
        "txt_in.individual_token_refiner.blocks.{i}.adaLN_modulation.1",
        Cut::Whole,
    ),
    ("norm_out.linear", "final_layer.adaLN_modulation.1", Cut::Swapped),
    ("proj_out", "final_layer.linear", Cut::Whole),
];

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let published = has(names, "double_blocks.0.img_attn_qkv");
    if published || has(names, "context_embedder.proj_in") { rules_of(TABLE) } else { Vec::new() }
}

/// Its 20 double and 40 single blocks have FLUX.1's names in diffusers; the numbers tell them apart where
/// no other name does.
fn told(seen: &Seen<'_>) -> Option<Told> {
    let named = seen.any(&[
        "double_blocks.{i}.img_mod.linear",
        "double_blocks.{i}.txt_mod.linear",
        "double_blocks.{i}.img_mlp.fc1",
        "double_blocks.{i}.img_mlp.fc2",
        "double_blocks.{i}.txt_mlp.fc1",
        "double_blocks.{i}.txt_mlp.fc2",
        "single_blocks.{i}.modulation.linear",
        "context_embedder.proj_in",
        "context_embedder.token_refiner.refiner_blocks.{i}.attn.to_q",
        "txt_in.individual_token_refiner.blocks.{i}.self_attn_qkv",
    ]);
    let dotted = seen
        .0
        .iter()
        .any(|body| !body.flat && body.capture("double_blocks.{i}.img_attn_qkv").is_some());
    let singles = ["single_blocks", "single_transformer_blocks"].map(|start| seen.highest(start));
    let counted = seen.highest("double_blocks") == Some(19)
        || singles.iter().flatten().any(|at| (38..40).contains(at));
    let within = singles.iter().flatten().all(|&at| at < 40);
    (within && (named || dotted || counted)).then(|| Told::published(rules_of(TABLE)))
}
