//! FLUX.1: its attention and the first layer of its single blocks are fused as published; the last
//! modulation has shift before scale (diffusers `convert_flux_transformer_checkpoint_to_diffusers`).

use super::{Architecture, Cut, Names, Rule, Seen, Table, Told, has, rules_of};

pub(super) static ARCHITECTURE: Architecture = Architecture { name: "flux", rules, told };

const TABLE: &Table = &[
    ("transformer_blocks.{i}.attn.to_q", "double_blocks.{i}.img_attn.qkv", Cut::nth(0, 3)),
    ("transformer_blocks.{i}.attn.to_k", "double_blocks.{i}.img_attn.qkv", Cut::nth(1, 3)),
    ("transformer_blocks.{i}.attn.to_v", "double_blocks.{i}.img_attn.qkv", Cut::nth(2, 3)),
    ("transformer_blocks.{i}.attn.add_q_proj", "double_blocks.{i}.txt_attn.qkv", Cut::nth(0, 3)),
    ("transformer_blocks.{i}.attn.add_k_proj", "double_blocks.{i}.txt_attn.qkv", Cut::nth(1, 3)),
    ("transformer_blocks.{i}.attn.add_v_proj", "double_blocks.{i}.txt_attn.qkv", Cut::nth(2, 3)),
    ("transformer_blocks.{i}.attn.to_out.0", "double_blocks.{i}.img_attn.proj", Cut::Whole),
    ("transformer_blocks.{i}.attn.to_add_out", "double_blocks.{i}.txt_attn.proj", Cut::Whole),
    (
        "transformer_blocks.{i}.attn.norm_q",
        "double_blocks.{i}.img_attn.norm.query_norm.scale",
        Cut::Whole,
    ),
    (
        "transformer_blocks.{i}.attn.norm_k",
        "double_blocks.{i}.img_attn.norm.key_norm.scale",
        Cut::Whole,
    ),
    (
        "transformer_blocks.{i}.attn.norm_added_q",
        "double_blocks.{i}.txt_attn.norm.query_norm.scale",
        Cut::Whole,
    ),
    (
        "transformer_blocks.{i}.attn.norm_added_k",
        "double_blocks.{i}.txt_attn.norm.key_norm.scale",
        Cut::Whole,
    ),
    ("transformer_blocks.{i}.norm1.linear", "double_blocks.{i}.img_mod.lin", Cut::Whole),
    ("transformer_blocks.{i}.norm1_context.linear", "double_blocks.{i}.txt_mod.lin", Cut::Whole),
    ("transformer_blocks.{i}.ff.net.0.proj", "double_blocks.{i}.img_mlp.0", Cut::Whole),
    ("transformer_blocks.{i}.ff.net.2", "double_blocks.{i}.img_mlp.2", Cut::Whole),
    ("transformer_blocks.{i}.ff_context.net.0.proj", "double_blocks.{i}.txt_mlp.0", Cut::Whole),
    ("transformer_blocks.{i}.ff_context.net.2", "double_blocks.{i}.txt_mlp.2", Cut::Whole),
    ("single_transformer_blocks.{i}.attn.to_q", "single_blocks.{i}.linear1", Cut::nth(0, 7)),
    ("single_transformer_blocks.{i}.attn.to_k", "single_blocks.{i}.linear1", Cut::nth(1, 7)),
    ("single_transformer_blocks.{i}.attn.to_v", "single_blocks.{i}.linear1", Cut::nth(2, 7)),
    (
        "single_transformer_blocks.{i}.proj_mlp",
        "single_blocks.{i}.linear1",
        Cut::Share { start: 3, count: 4, of: 7 },
    ),
    ("single_transformer_blocks.{i}.proj_out", "single_blocks.{i}.linear2", Cut::Whole),
    ("single_transformer_blocks.{i}.norm.linear", "single_blocks.{i}.modulation.lin", Cut::Whole),
    (
        "single_transformer_blocks.{i}.attn.norm_q",
        "single_blocks.{i}.norm.query_norm.scale",
        Cut::Whole,
    ),
    (
        "single_transformer_blocks.{i}.attn.norm_k",
        "single_blocks.{i}.norm.key_norm.scale",
        Cut::Whole,
    ),
    ("x_embedder", "img_in", Cut::Whole),
    ("context_embedder", "txt_in", Cut::Whole),
    ("time_text_embed.timestep_embedder.linear_1", "time_in.in_layer", Cut::Whole),
    ("time_text_embed.timestep_embedder.linear_2", "time_in.out_layer", Cut::Whole),
    ("time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer", Cut::Whole),
    ("time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer", Cut::Whole),
    ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer", Cut::Whole),
    ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer", Cut::Whole),
    ("norm_out.linear", "final_layer.adaLN_modulation.1", Cut::Swapped),
    ("proj_out", "final_layer.linear", Cut::Whole),
];

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let split = has(names, "single_transformer_blocks.0.attn.to_q")
        && has(names, "transformer_blocks.0.norm1.linear")
        && has(names, "transformer_blocks.0.ff.net.0.proj")
        && !has(names, "context_embedder.proj_in");
    if !split && !has(names, "double_blocks.0.img_attn.qkv") {
        return Vec::new();
    }
    let mut rules = rules_of(TABLE);
    rules.extend(rules_of(ATTENTION_OF_SINGLE));
    rules.extend(rules_of(&[(
        "single_blocks.{i}.linear1_qkv",
        "single_blocks.{i}.linear1",
        Cut::Share { start: 0, count: 3, of: 7 },
    )]));
    rules
}

/// XLabs' name of the first rows of a single block's first layer.
const ATTENTION_OF_SINGLE: &Table = &[
    ("single_transformer_blocks.{i}.attn.to_q", "single_blocks.{i}.linear1_qkv", Cut::nth(0, 3)),
    ("single_transformer_blocks.{i}.attn.to_k", "single_blocks.{i}.linear1_qkv", Cut::nth(1, 3)),
    ("single_transformer_blocks.{i}.attn.to_v", "single_blocks.{i}.linear1_qkv", Cut::nth(2, 3)),
];

/// 19 double and 38 single blocks. FLUX.2 has some of the names, and layers of other proportions.
fn told(seen: &Seen<'_>) -> Option<Told> {
    let mut rules = rules_of(TABLE);
    rules.extend(rules_of(ATTENTION_OF_SINGLE));
    let own = |rule: &Rule| {
        let single = rule.split.starts_with("single_");
        let blocks = single || rule.published.starts_with("double_");
        blocks && seen.any(&[&rule.published]) || single && seen.any(&[&rule.split])
    };
    let doubles = ["double_blocks", "transformer_blocks"].map(|start| seen.highest(start));
    let singles = ["single_blocks", "single_transformer_blocks"].map(|start| seen.highest(start));
    let within = |found: &[Option<usize>], most| found.iter().flatten().all(|&at| at < most);
    let other = seen.ratio("single_blocks.{i}.linear1", 7) == Some(false)
        || seen.ratio("double_blocks.{i}.img_mlp.0", 4) == Some(false);
    let alone = seen.width("transformer_blocks.{i}.attn.to_q", &[3072]) && doubles[1] == Some(18);
    let told = rules.iter().any(own) || alone;
    (told && !other && within(&doubles, 19) && within(&singles, 38))
        .then(|| Told { t5: Some(2), ..Told::published(rules) })
}
