//! The U-Net of Stable Diffusion 1, 2 and XL: diffusers counts blocks by resolution, the published
//! checkpoints number all of them in one row.
//!
//! The numbers follow from the base itself, whichever layout it has: a block goes on until its
//! down- or upsampler (LDM `openaimodel.py`; diffusers `loaders/single_file_utils.py`,
//! `convert_ldm_unet_checkpoint`).

use super::{Architecture, Cut, Names, Rule, has};

pub(super) static ARCHITECTURE: Architecture = Architecture { rules };

const ENDS: [(&str, &str); 9] = [
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("class_embedding.linear_1", "label_emb.0.0"),
    ("class_embedding.linear_2", "label_emb.0.2"),
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
