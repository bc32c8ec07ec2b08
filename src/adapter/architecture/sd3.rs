//! Stable Diffusion 3 and 3.5: attention is fused as published, and of the last layer and the last
//! context block shift stands before scale (diffusers
//! `convert_sd3_transformer_checkpoint_to_diffusers`).

use super::{Architecture, Cut, Names, Rule, Table, has, rules_of};

pub(super) static ARCHITECTURE: Architecture = Architecture { rules };

const TABLE: &Table = &[
    ("transformer_blocks.{i}.attn.to_q", "joint_blocks.{i}.x_block.attn.qkv", Cut::nth(0, 3)),
    ("transformer_blocks.{i}.attn.to_k", "joint_blocks.{i}.x_block.attn.qkv", Cut::nth(1, 3)),
    ("transformer_blocks.{i}.attn.to_v", "joint_blocks.{i}.x_block.attn.qkv", Cut::nth(2, 3)),
    (
        "transformer_blocks.{i}.attn.add_q_proj",
        "joint_blocks.{i}.context_block.attn.qkv",
        Cut::nth(0, 3),
    ),
    (
        "transformer_blocks.{i}.attn.add_k_proj",
        "joint_blocks.{i}.context_block.attn.qkv",
        Cut::nth(1, 3),
    ),
    (
        "transformer_blocks.{i}.attn.add_v_proj",
        "joint_blocks.{i}.context_block.attn.qkv",
        Cut::nth(2, 3),
    ),
    ("transformer_blocks.{i}.attn2.to_q", "joint_blocks.{i}.x_block.attn2.qkv", Cut::nth(0, 3)),
    ("transformer_blocks.{i}.attn2.to_k", "joint_blocks.{i}.x_block.attn2.qkv", Cut::nth(1, 3)),
    ("transformer_blocks.{i}.attn2.to_v", "joint_blocks.{i}.x_block.attn2.qkv", Cut::nth(2, 3)),
    ("transformer_blocks.{i}.attn.to_out.0", "joint_blocks.{i}.x_block.attn.proj", Cut::Whole),
    ("transformer_blocks.{i}.attn2.to_out.0", "joint_blocks.{i}.x_block.attn2.proj", Cut::Whole),
    (
        "transformer_blocks.{i}.attn.to_add_out",
        "joint_blocks.{i}.context_block.attn.proj",
        Cut::Whole,
    ),
    ("transformer_blocks.{i}.attn.norm_q", "joint_blocks.{i}.x_block.attn.ln_q", Cut::Whole),
    ("transformer_blocks.{i}.attn.norm_k", "joint_blocks.{i}.x_block.attn.ln_k", Cut::Whole),
    ("transformer_blocks.{i}.attn2.norm_q", "joint_blocks.{i}.x_block.attn2.ln_q", Cut::Whole),
    ("transformer_blocks.{i}.attn2.norm_k", "joint_blocks.{i}.x_block.attn2.ln_k", Cut::Whole),
    (
        "transformer_blocks.{i}.attn.norm_added_q",
        "joint_blocks.{i}.context_block.attn.ln_q",
        Cut::Whole,
    ),
    (
        "transformer_blocks.{i}.attn.norm_added_k",
        "joint_blocks.{i}.context_block.attn.ln_k",
        Cut::Whole,
    ),
    ("transformer_blocks.{i}.ff.net.0.proj", "joint_blocks.{i}.x_block.mlp.fc1", Cut::Whole),
    ("transformer_blocks.{i}.ff.net.2", "joint_blocks.{i}.x_block.mlp.fc2", Cut::Whole),
    (
        "transformer_blocks.{i}.ff_context.net.0.proj",
        "joint_blocks.{i}.context_block.mlp.fc1",
        Cut::Whole,
    ),
    (
        "transformer_blocks.{i}.ff_context.net.2",
        "joint_blocks.{i}.context_block.mlp.fc2",
        Cut::Whole,
    ),
    (
        "transformer_blocks.{i}.norm1.linear",
        "joint_blocks.{i}.x_block.adaLN_modulation.1",
        Cut::Whole,
    ),
    ("x_embedder.proj", "x_embedder.proj", Cut::Whole),
    ("pos_embed.proj", "x_embedder.proj", Cut::Whole),
    ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0", Cut::Whole),
    ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2", Cut::Whole),
    ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0", Cut::Whole),
    ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2", Cut::Whole),
    ("norm_out.linear", "final_layer.adaLN_modulation.1", Cut::Swapped),
    ("proj_out", "final_layer.linear", Cut::Whole),
];

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let published = has(names, "joint_blocks.0.x_block.");
    let split = has(names, "transformer_blocks.0.attn.add_q_proj")
        && has(names, "pos_embed.proj")
        && !has(names, "single_transformer_blocks.");
    if !published && !split {
        return Vec::new();
    }
    let mut rules = rules_of(TABLE);
    // The context's last modulation has two parts instead of six, in the other order.
    let count = (0..names.len())
        .take_while(|at| {
            has(names, &format!("joint_blocks.{at}."))
                || has(names, &format!("transformer_blocks.{at}."))
        })
        .count();
    for at in 0..count {
        rules.push(Rule {
            split: format!("transformer_blocks.{at}.norm1_context.linear"),
            published: format!("joint_blocks.{at}.context_block.adaLN_modulation.1"),
            cut: if at + 1 == count { Cut::Swapped } else { Cut::Whole },
        });
    }
    rules
}
