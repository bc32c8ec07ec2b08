//! Wan 2.1 and 2.2: the layouts differ in names alone (diffusers
//! `convert_wan_transformer_to_diffusers`).

use super::{Architecture, Cut, Names, Rule, Seen, Table, Told, has, rules_of};

pub(super) static ARCHITECTURE: Architecture = Architecture { name: "wan", rules, told };

const TABLE: &Table = &[
    ("blocks.{i}.attn1.to_q", "blocks.{i}.self_attn.q", Cut::Whole),
    ("blocks.{i}.attn1.to_k", "blocks.{i}.self_attn.k", Cut::Whole),
    ("blocks.{i}.attn1.to_v", "blocks.{i}.self_attn.v", Cut::Whole),
    ("blocks.{i}.attn1.to_out.0", "blocks.{i}.self_attn.o", Cut::Whole),
    ("blocks.{i}.attn1.norm_q", "blocks.{i}.self_attn.norm_q", Cut::Whole),
    ("blocks.{i}.attn1.norm_k", "blocks.{i}.self_attn.norm_k", Cut::Whole),
    ("blocks.{i}.attn2.to_q", "blocks.{i}.cross_attn.q", Cut::Whole),
    ("blocks.{i}.attn2.to_k", "blocks.{i}.cross_attn.k", Cut::Whole),
    ("blocks.{i}.attn2.to_v", "blocks.{i}.cross_attn.v", Cut::Whole),
    ("blocks.{i}.attn2.to_out.0", "blocks.{i}.cross_attn.o", Cut::Whole),
    ("blocks.{i}.attn2.norm_q", "blocks.{i}.cross_attn.norm_q", Cut::Whole),
    ("blocks.{i}.attn2.norm_k", "blocks.{i}.cross_attn.norm_k", Cut::Whole),
    ("blocks.{i}.attn2.add_k_proj", "blocks.{i}.cross_attn.k_img", Cut::Whole),
    ("blocks.{i}.attn2.add_v_proj", "blocks.{i}.cross_attn.v_img", Cut::Whole),
    ("blocks.{i}.attn2.norm_added_k", "blocks.{i}.cross_attn.norm_k_img", Cut::Whole),
    ("blocks.{i}.ffn.net.0.proj", "blocks.{i}.ffn.0", Cut::Whole),
    ("blocks.{i}.ffn.net.2", "blocks.{i}.ffn.2", Cut::Whole),
    ("blocks.{i}.norm2", "blocks.{i}.norm3", Cut::Whole),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0", Cut::Whole),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2", Cut::Whole),
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0", Cut::Whole),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2", Cut::Whole),
    ("condition_embedder.time_proj", "time_projection.1", Cut::Whole),
    ("condition_embedder.image_embedder.norm1", "img_emb.proj.0", Cut::Whole),
    ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1", Cut::Whole),
    ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3", Cut::Whole),
    ("condition_embedder.image_embedder.norm2", "img_emb.proj.4", Cut::Whole),
    ("proj_out", "head.head", Cut::Whole),
    ("patch_embedding", "patch_embedding", Cut::Whole),
];

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let published = has(names, "blocks.0.self_attn.q") && has(names, "time_projection.1");
    let split = has(names, "blocks.0.attn1.to_q") && has(names, "condition_embedder.time_proj");
    if published || split { rules_of(TABLE) } else { Vec::new() }
}

fn told(seen: &Seen<'_>) -> Option<Told> {
    let own = |(split, published, _): &(&str, &str, Cut)| {
        split.starts_with("blocks.{i}.") && split != published && seen.any(&[split, published])
    };
    TABLE.iter().any(own).then(|| Told::published(rules_of(TABLE)))
}
