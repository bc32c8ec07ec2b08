//! Qwen-Image: it has one layout, diffusers' own (diffusers `transformer_qwenimage.py`). What there is to
//! know of it is where the dots of flattened names were.

use super::{Architecture, Cut, Seen, Table, Told, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "qwen_image", rules: |_| Vec::new(), told };

const NAMES: [&str; 21] = [
    "transformer_blocks.{i}.attn.to_q",
    "transformer_blocks.{i}.attn.to_k",
    "transformer_blocks.{i}.attn.to_v",
    "transformer_blocks.{i}.attn.add_q_proj",
    "transformer_blocks.{i}.attn.add_k_proj",
    "transformer_blocks.{i}.attn.add_v_proj",
    "transformer_blocks.{i}.attn.to_out.0",
    "transformer_blocks.{i}.attn.to_add_out",
    "transformer_blocks.{i}.img_mod.1",
    "transformer_blocks.{i}.txt_mod.1",
    "transformer_blocks.{i}.img_mlp.net.0.proj",
    "transformer_blocks.{i}.img_mlp.net.2",
    "transformer_blocks.{i}.txt_mlp.net.0.proj",
    "transformer_blocks.{i}.txt_mlp.net.2",
    "img_in",
    "txt_in",
    "time_text_embed.timestep_embedder.linear_1",
    "time_text_embed.timestep_embedder.linear_2",
    "norm_out.linear",
    "proj_out",
    "txt_norm",
];

/// Its feed-forward layers have names of their own; where only its attention is adapted, its 60 blocks
/// tell it.
fn told(seen: &Seen<'_>) -> Option<Told> {
    let named = NAMES
        .iter()
        .any(|name| (name.contains("_mlp.") || name.contains("_mod.")) && seen.any(&[name]));
    let counted = seen.highest("transformer_blocks").is_some_and(|at| at >= 38)
        && seen.any(&NAMES[..8])
        && !seen.any(&["transformer_blocks.{i}.norm1_context.linear"]);
    let rules = rules_of(&NAMES.map(|name| (name, name, Cut::Whole)) as &Table);
    (named || counted).then(|| Told::published(rules))
}
