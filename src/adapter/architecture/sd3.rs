//! Stable Diffusion 3 and 3.5: attention is fused as published, and of the last layer and the last
//! context block shift stands before scale (diffusers
//! `convert_sd3_transformer_checkpoint_to_diffusers`).

use super::{Architecture, Cut, Detected, Evidence, Names, OfBase, Rule, fill, has, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "sd3", tables: &[TABLE], rules: OfBase::Names(rules), detect };

const TABLE: &str = "
transformer_blocks.{i}.attn.{to_q,to_k,to_v}                  joint_blocks.{i}.x_block.attn.qkv  1:1:1
transformer_blocks.{i}.attn.{add_q_proj,add_k_proj,add_v_proj}  joint_blocks.{i}.context_block.attn.qkv  1:1:1
transformer_blocks.{i}.attn2.{to_q,to_k,to_v}                 joint_blocks.{i}.x_block.attn2.qkv  1:1:1
transformer_blocks.{i}.{attn,attn2}.to_out.0                  joint_blocks.{i}.x_block.{attn,attn2}.proj
transformer_blocks.{i}.attn.to_add_out                        joint_blocks.{i}.context_block.attn.proj
transformer_blocks.{i}.{attn.norm_q,attn.norm_k,attn2.norm_q,attn2.norm_k}  joint_blocks.{i}.x_block.{attn.ln_q,attn.ln_k,attn2.ln_q,attn2.ln_k}
transformer_blocks.{i}.attn.{norm_added_q,norm_added_k}       joint_blocks.{i}.context_block.attn.{ln_q,ln_k}
transformer_blocks.{i}.ff.net.{0.proj,2}                      joint_blocks.{i}.x_block.mlp.{fc1,fc2}
transformer_blocks.{i}.ff_context.net.{0.proj,2}              joint_blocks.{i}.context_block.mlp.{fc1,fc2}
transformer_blocks.{i}.norm1.linear                           joint_blocks.{i}.x_block.adaLN_modulation.1
pos_embed.proj                                                x_embedder.proj
x_embedder.proj
time_text_embed.timestep_embedder.{linear_1,linear_2}         t_embedder.mlp.{0,2}
time_text_embed.text_embedder.{linear_1,linear_2}             y_embedder.mlp.{0,2}
norm_out.linear                                               final_layer.adaLN_modulation.1  swapped
proj_out                                                      final_layer.linear
context_embedder
";

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

/// Other transformers have its names in diffusers; the width or the patches' embedding tells it. The
/// context's last modulation is the one with two parts.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    const CONTEXT: (&str, &str) = (
        "transformer_blocks.{i}.norm1_context.linear",
        "joint_blocks.{i}.context_block.adaLN_modulation.1",
    );
    let published = rules_of(TABLE).iter().any(|Rule { published, .. }| {
        published.starts_with("joint_blocks.") && seen.any(&[published])
    }) || seen.any(&[CONTEXT.1]);
    let attention = ["transformer_blocks.{i}.attn.to_q", "transformer_blocks.{i}.attn.add_q_proj"];
    let single = seen.highest("single_transformer_blocks").is_some();
    let split = !single
        && (attention.iter().any(|name| seen.width(name, &[1536, 2432]))
            || (seen.any(&attention) && seen.any(&["pos_embed.proj"])));
    if !published && !split {
        return None;
    }
    let mut rules = Vec::new();
    for body in seen.0 {
        let found = body.capture(CONTEXT.0).or_else(|| body.capture(CONTEXT.1));
        if let Some(found) = found.filter(|_| body.outputs == 2 * body.inputs) {
            let (split, published) = (fill(CONTEXT.0, &found), fill(CONTEXT.1, &found));
            rules.push(Rule { split, published, cut: Cut::Swapped });
        }
    }
    rules.extend(rules_of(TABLE));
    let (split, published) = (CONTEXT.0.to_owned(), CONTEXT.1.to_owned());
    rules.push(Rule { split, published, cut: Cut::Whole });
    Some(Detected { t5: Some(3), ..Detected::published(rules) })
}
