//! Lumina-Image 2 and Z-Image, of one design: attention is fused as published, with fewer keys and
//! values than queries in Lumina's; diffusers spells the two differently
//! (`convert_lumina2_to_diffusers`, `convert_z_image_transformer_checkpoint_to_diffusers`).

use super::{Architecture, Cut, Detected, Evidence, Names, OfBase, Rule, fits, has, rules_of};

pub(super) static ARCHITECTURE: Architecture = Architecture {
    name: "lumina",
    tables: &[LUMINA, Z_IMAGE, ALIKE],
    rules: OfBase::Names(rules),
    detect,
};

/// The stacks of layers that have attention.
const STACKS: [&str; 3] = ["layers", "noise_refiner", "context_refiner"];

/// Of a layer: (Lumina's, Z-Image's, published).
const LAYER: [(&str, &str, &str, Cut); 11] = [
    ("attn.to_q", "attention.to_q", "attention.qkv", Cut::First),
    ("attn.to_k", "attention.to_k", "attention.qkv", Cut::Middle),
    ("attn.to_v", "attention.to_v", "attention.qkv", Cut::Last),
    ("attn.to_out.0", "attention.to_out.0", "attention.out", Cut::Whole),
    ("attn.norm_q", "attention.norm_q", "attention.q_norm", Cut::Whole),
    ("attn.norm_k", "attention.norm_k", "attention.k_norm", Cut::Whole),
    ("feed_forward.linear_1", "feed_forward.w1", "feed_forward.w1", Cut::Whole),
    ("feed_forward.linear_2", "feed_forward.w2", "feed_forward.w2", Cut::Whole),
    ("feed_forward.linear_3", "feed_forward.w3", "feed_forward.w3", Cut::Whole),
    ("norm1.linear", "adaLN_modulation.0", "adaLN_modulation.0", Cut::Whole),
    ("norm1.linear", "adaLN_modulation.1", "adaLN_modulation.1", Cut::Whole),
];

const LUMINA: &str = "
time_caption_embed.timestep_embedder.{linear_1,linear_2}  t_embedder.mlp.{0,2}
time_caption_embed.caption_embedder.{0,1}                 cap_embedder.{0,1}
norm_out.{linear_1,linear_2}                              final_layer.{adaLN_modulation.1,linear}
x_embedder
";

const Z_IMAGE: &str = "
all_x_embedder.2-1                               x_embedder
all_final_layer.2-1.{linear,adaLN_modulation.1}  final_layer.{linear,adaLN_modulation.1}
";

/// What no layout calls otherwise.
const ALIKE: &str = "
cap_embedder.{0,1}
{t_embedder,t_embedder_2}.mlp.{0,2}
";

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let published = has(names, "noise_refiner.0.attention.qkv");
    let lumina = has(names, "noise_refiner.0.attn.to_q");
    if !published && !lumina && !has(names, "noise_refiner.0.attention.to_q") {
        return Vec::new();
    }
    let mut rules = Vec::new();
    for stack in STACKS {
        for (own, other, last, cut) in LAYER {
            let rule = |layer: &str| Rule {
                split: format!("{stack}.{{i}}.{layer}"),
                published: format!("{stack}.{{i}}.{last}"),
                cut,
            };
            // What one base holds is one of the two; a published one answers to both.
            if published || lumina {
                // Lumina's one modulation is number 1, Z-Image's number 0.
                let modulation = format!("{stack}.{{i}}.{last}");
                if own != "norm1.linear" || !published || fits(names, &modulation) {
                    rules.push(rule(own));
                }
            }
            if (published || !lumina) && other != last {
                rules.push(rule(other));
            }
        }
    }
    if published || lumina {
        rules.extend(rules_of(LUMINA));
    }
    if published || !lumina {
        rules.extend(rules_of(Z_IMAGE));
    }
    rules
}

/// As published the two differ in their widths, in how many keys there are, and in their modulation's
/// number.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let names = |of: fn(&(&'static str, &'static str, &'static str, Cut)) -> &'static str| {
        STACKS.iter().flat_map(move |stack| {
            let own = LAYER.iter().filter(move |layer| layer.0 != layer.2 && layer.1 != layer.2);
            own.map(move |layer| format!("{stack}.{{i}}.{}", of(layer)))
        })
    };
    let any = |of| names(of).any(|name| seen.any(&[&name]));
    let (lumina, z_image, published) = (any(|l| l.0), any(|l| l.1), any(|l| l.2));
    if !lumina && !z_image && !published {
        return None;
    }
    let lumina = lumina
        || (!z_image
            && seen.ratio("layers.{i}.attention.qkv", 3).map_or_else(
                || {
                    seen.any(&["layers.{i}.adaLN_modulation.1"])
                        || seen.width("layers.{i}.attention.out", &[2304])
                },
                |as_many_keys| !as_many_keys,
            ));
    let mut rules = Vec::new();
    for stack in STACKS {
        for (own, other, last, cut) in LAYER {
            if lumina && last == "adaLN_modulation.0" {
                continue;
            }
            let layer = if lumina { own } else { other };
            // Z-Image has as many keys as queries.
            let cut = match cut {
                Cut::First if !lumina => Cut::nth(0, 3),
                Cut::Middle if !lumina => Cut::nth(1, 3),
                Cut::Last if !lumina => Cut::nth(2, 3),
                cut => cut,
            };
            let (split, published) =
                (format!("{stack}.{{i}}.{layer}"), format!("{stack}.{{i}}.{last}"));
            rules.push(Rule { split, published, cut });
        }
    }
    rules.extend(if lumina { rules_of(LUMINA) } else { rules_of(Z_IMAGE) });
    rules.extend(rules_of(ALIKE));
    Some(Detected::published(rules))
}
