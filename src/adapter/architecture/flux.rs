//! FLUX.1: its attention and the first layer of its single blocks are fused as published; the last
//! modulation has shift before scale (diffusers `convert_flux_transformer_checkpoint_to_diffusers`).

use super::{Architecture, Cut, Detected, Evidence, Names, OfBase, Rule, has, rules_of};

pub(super) static ARCHITECTURE: Architecture = Architecture {
    name: "flux",
    tables: &[TABLE, ATTENTION_OF_SINGLE],
    rules: OfBase::Names(rules),
    detect,
};

const TABLE: &str = "
transformer_blocks.{i}.attn.{to_q,to_k,to_v}                  double_blocks.{i}.img_attn.qkv  1:1:1
transformer_blocks.{i}.attn.{add_q_proj,add_k_proj,add_v_proj}  double_blocks.{i}.txt_attn.qkv  1:1:1
transformer_blocks.{i}.attn.{to_out.0,to_add_out}             double_blocks.{i}.{img_attn,txt_attn}.proj
transformer_blocks.{i}.attn.{norm_q,norm_k}                   double_blocks.{i}.img_attn.norm.{query_norm,key_norm}.scale
transformer_blocks.{i}.attn.{norm_added_q,norm_added_k}       double_blocks.{i}.txt_attn.norm.{query_norm,key_norm}.scale
transformer_blocks.{i}.{norm1,norm1_context}.linear           double_blocks.{i}.{img_mod,txt_mod}.lin
transformer_blocks.{i}.ff.net.{0.proj,2}                      double_blocks.{i}.img_mlp.{0,2}
transformer_blocks.{i}.ff_context.net.{0.proj,2}              double_blocks.{i}.txt_mlp.{0,2}
single_transformer_blocks.{i}.{attn.to_q,attn.to_k,attn.to_v,proj_mlp}  single_blocks.{i}.linear1  1:1:1:4
single_transformer_blocks.{i}.{proj_out,norm.linear}          single_blocks.{i}.{linear2,modulation.lin}
single_transformer_blocks.{i}.attn.{norm_q,norm_k}            single_blocks.{i}.norm.{query_norm,key_norm}.scale
x_embedder                                                    img_in
context_embedder                                              txt_in
time_text_embed.timestep_embedder.{linear_1,linear_2}         time_in.{in_layer,out_layer}
time_text_embed.guidance_embedder.{linear_1,linear_2}         guidance_in.{in_layer,out_layer}
time_text_embed.text_embedder.{linear_1,linear_2}             vector_in.{in_layer,out_layer}
norm_out.linear                                               final_layer.adaLN_modulation.1  swapped
proj_out                                                      final_layer.linear
";

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
    let (split, published) = ("single_blocks.{i}.linear1_qkv", "single_blocks.{i}.linear1");
    let cut = Cut::Share { start: 0, count: 3, of: 7, square: true };
    rules.push(Rule { split: split.to_owned(), published: published.to_owned(), cut });
    rules
}

/// XLabs' name of the first rows of a single block's first layer.
const ATTENTION_OF_SINGLE: &str = "
single_transformer_blocks.{i}.attn.{to_q,to_k,to_v}  single_blocks.{i}.linear1_qkv  1:1:1
";

/// 19 double and 38 single blocks. FLUX.2 has some of the names, and layers of other proportions.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
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
    // AuraFlow's and FLUX.3's single blocks go on after their attention.
    let other = seen.any(&["single_transformer_blocks.{i}.attn.to_out.0"])
        || seen.ratio("single_blocks.{i}.linear1", 7) == Some(false)
        || seen.ratio("double_blocks.{i}.img_mlp.0", 4) == Some(false);
    let alone = seen.width("transformer_blocks.{i}.attn.to_q", &[3072]) && doubles[1] == Some(18);
    let detected = rules.iter().any(own) || alone;
    (detected && !other && within(&doubles, 19) && within(&singles, 38))
        .then(|| Detected { t5: Some(2), ..Detected::published(rules) })
}
