//! The U-Net of Stable Diffusion 1, 2 and XL: diffusers counts blocks by resolution, the published
//! checkpoints number all of them in one row.
//!
//! The numbers follow from the base itself, whichever layout it has: a block goes on until its
//! down- or upsampler (LDM `openaimodel.py`; diffusers `loaders/single_file_utils.py`,
//! `convert_ldm_unet_checkpoint`).

use super::{Architecture, Cut, Detected, Evidence, Names, OfBase, Rule, Side, has};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "unet", tables: &[], rules: OfBase::Names(rules), detect };

const ENDS: [(&str, &str); 10] = [
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("class_embedding.linear_1", "label_emb.0.0"),
    ("class_embedding.linear_2", "label_emb.0.2"),
    // Kolors', which has ChatGLM's states for its context.
    ("encoder_hid_proj", "encoder_hid_proj"),
];

const RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// A U-Net's rules, from a base of either layout.
fn rules(names: &Names<'_>) -> Vec<Rule> {
    let published = has(names, "input_blocks.0.0");
    if !published && !has(names, "down_blocks.0.resnets.0.") {
        return Vec::new();
    }
    let mut rules = Vec::new();
    let mut add = |split: &str, published: &str| {
        let (split, published) = (split.to_owned(), published.to_owned());
        rules.push(Rule { split, published, cut: Cut::Whole });
    };
    for (split, published) in ENDS {
        // Only one of the two embeddings has a name in diffusers; which, its own base says.
        if published.starts_with("label_emb")
            && split.starts_with("class")
            && !has(names, "class_embedding")
        {
            continue;
        }
        add(split, published);
    }
    down(names, published, &mut add);
    for at in 0..2 {
        resnet(&format!("mid_block.resnets.{at}"), &format!("middle_block.{}", 2 * at), &mut add);
    }
    add("mid_block.attentions.0.{*}", "middle_block.1.{*}");
    up(names, published, &mut add);
    rules
}

fn resnet(split: &str, published: &str, add: &mut impl FnMut(&str, &str)) {
    for (own, other) in RESNET {
        add(&format!("{split}.{own}"), &format!("{published}.{other}"));
    }
}

/// Blocks of the way down: residual layers, then a downsampler, each with a number of its own.
fn down(names: &Names<'_>, published: bool, add: &mut impl FnMut(&str, &str)) {
    let (mut block, mut layer) = (0, 0);
    for number in 1.. {
        let own = format!("input_blocks.{number}");
        let sampler = format!("down_blocks.{block}.downsamplers.0.conv");
        let split = format!("down_blocks.{block}.resnets.{layer}");
        let (resnets, samples) = if published {
            (has(names, &format!("{own}.0.in_layers.")), has(names, &format!("{own}.0.op")))
        } else {
            let resnets = has(names, &format!("{split}."));
            (resnets, !resnets && has(names, &sampler))
        };
        if samples {
            add(&sampler, &format!("{own}.0.op"));
            (block, layer) = (block + 1, 0);
        } else if resnets {
            resnet(&split, &format!("{own}.0"), add);
            add(
                &format!("down_blocks.{block}.attentions.{layer}.{{*}}"),
                &format!("{own}.1.{{*}}"),
            );
            layer += 1;
        } else {
            return;
        }
    }
}

/// Blocks of the way up: the last residual layer of each shares its number with the upsampler, which
/// stands behind the attention where there is one.
fn up(names: &Names<'_>, published: bool, add: &mut impl FnMut(&str, &str)) {
    let (mut block, mut layer) = (0, 0);
    for number in 0.. {
        let own = format!("output_blocks.{number}");
        let split = format!("up_blocks.{block}.resnets.{layer}");
        let attention = format!("up_blocks.{block}.attentions.{layer}");
        let sampler = format!("up_blocks.{block}.upsamplers.0.conv");
        let resnets = if published {
            has(names, &format!("{own}.0.in_layers."))
        } else {
            has(names, &format!("{split}."))
        };
        if !resnets {
            return;
        }
        resnet(&split, &format!("{own}.0"), add);
        let at = |place: usize| format!("{own}.{place}.conv");
        let sampled = if published {
            [1, 2].into_iter().find(|place| has(names, &at(*place)))
        } else {
            let last = !has(names, &format!("up_blocks.{block}.resnets.{}.", layer + 1));
            let place = if has(names, &format!("{attention}.")) { 2 } else { 1 };
            (last && has(names, &sampler)).then_some(place)
        };
        if sampled != Some(1) {
            add(&format!("{attention}.{{*}}"), &format!("{own}.1.{{*}}"));
        }
        layer += 1;
        if let Some(place) = sampled {
            add(&sampler, &at(place));
            (block, layer) = (block + 1, 0);
        }
    }
}

/// What a block of attention is made of, in either layout.
const ATTENTION: [&str; 16] = [
    "norm",
    "proj_in",
    "proj_out",
    "transformer_blocks.{i}.norm1",
    "transformer_blocks.{i}.norm2",
    "transformer_blocks.{i}.norm3",
    "transformer_blocks.{i}.attn1.to_q",
    "transformer_blocks.{i}.attn1.to_k",
    "transformer_blocks.{i}.attn1.to_v",
    "transformer_blocks.{i}.attn1.to_out.0",
    "transformer_blocks.{i}.attn2.to_q",
    "transformer_blocks.{i}.attn2.to_k",
    "transformer_blocks.{i}.attn2.to_v",
    "transformer_blocks.{i}.attn2.to_out.0",
    "transformer_blocks.{i}.ff.net.0.proj",
    "transformer_blocks.{i}.ff.net.2",
];

/// Every one of these models has two residual layers a block on the way down and three on the way up, so
/// the numbers do not depend on which it is; only the first upsampler's does.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let xl = is_xl(seen);
    let mut rules = Vec::new();
    let mut add = |split: &str, published: &str| {
        let (split, published) = (split.to_owned(), published.to_owned());
        rules.push(Rule { split, published, cut: Cut::Whole });
    };
    for (split, published) in ENDS {
        add(split, published);
    }
    let attention = |split: &str, published: &str, add: &mut dyn FnMut(&str, &str)| {
        for name in ATTENTION {
            add(&format!("{split}.{name}"), &format!("{published}.{name}"));
        }
    };
    for (at, number) in [(0, 0), (1, 2)] {
        resnet(&format!("mid_block.resnets.{at}"), &format!("middle_block.{number}"), &mut add);
    }
    attention("mid_block.attentions.0", "middle_block.1", &mut add);
    for block in 0..4 {
        for layer in 0..2 {
            let own = format!("input_blocks.{}", 1 + 3 * block + layer);
            resnet(&format!("down_blocks.{block}.resnets.{layer}"), &format!("{own}.0"), &mut add);
            let split = format!("down_blocks.{block}.attentions.{layer}");
            attention(&split, &format!("{own}.1"), &mut add);
        }
        let sampler = format!("down_blocks.{block}.downsamplers.0.conv");
        add(&sampler, &format!("input_blocks.{}.0.op", 3 + 3 * block));
        for layer in 0..3 {
            let own = format!("output_blocks.{}", 3 * block + layer);
            resnet(&format!("up_blocks.{block}.resnets.{layer}"), &format!("{own}.0"), &mut add);
            let split = format!("up_blocks.{block}.attentions.{layer}");
            attention(&split, &format!("{own}.1"), &mut add);
        }
        let sampler = format!("up_blocks.{block}.upsamplers.0.conv");
        let places = if block == 0 && !xl { [1, 2] } else { [2, 1] };
        for place in places {
            add(&sampler, &format!("output_blocks.{}.{place}.conv", 3 * block + 2));
        }
    }
    let own = |rule: &Rule| seen.any(&[&rule.split, &rule.published]);
    let kohya = if xl { Side::Published } else { Side::Split };
    let own = rules.iter().any(own);
    own.then_some(Detected { component: "unet", kohya, ..Detected::published(rules) })
}

/// Whether it is XL's: attention in the two deeper of three blocks, several layers of it each.
fn is_xl(seen: &Evidence<'_>) -> bool {
    const STARTS: [&str; 6] = [
        "add_embedding_",
        "label_emb_",
        "up_blocks_0_attentions_",
        "output_blocks_0_1_",
        "output_blocks_1_1_",
        "output_blocks_2_1_transformer_",
    ];
    const CONTEXT: [&str; 2] = [
        "down_blocks.{i}.attentions.{i}.transformer_blocks.{i}.attn2.to_k",
        "input_blocks.{i}.{i}.transformer_blocks.{i}.attn2.to_k",
    ];
    let named = seen.0.iter().any(|body| {
        let path = body.path.replace('.', "_");
        let layer = path.split_once("_transformer_blocks_").map(|(_, layer)| layer);
        layer.is_some_and(|layer| !layer.starts_with("0_"))
            || STARTS.iter().any(|start| path.starts_with(start))
    });
    named || CONTEXT.iter().any(|name| seen.width(name, &[2048]))
}
